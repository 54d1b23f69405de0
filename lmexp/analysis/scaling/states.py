"""What a table of another tool says of its runs: which of its words mean that a run has finished.

The words are those of lmexp, of W&B (docs.wandb.ai, `Run.state`), of MLflow (`RunStatus`) and of Slurm (`squeue`,
section JOB STATE CODES, long and short), and their usual synonyms. A word that is not listed is an error: if a
crashed run counted as finished, a wrong loss would enter the law.
"""

import re

import numpy as np
import numpy.typing as npt
import pandas as pd

from lmexp.errors import UserError
from lmexp.runs.state import STATES
from lmexp.units import printable

HEADINGS = ("state", "status", "run_state", "run_status", "job_state")
"""Usual headings of the column, in upper or lower case; the first one that a table has is used."""
FINISHED = frozenset({"done", "finished", "complete", "completed", "success", "succeeded", "successful", "ok", "cd"})
UNFINISHED = frozenset(
    {
        *(set(STATES) - {"done"}),
        *("crashed", "crash", "failure", "error", "errored", "killed", "aborted", "interrupted", "stopped", "nan"),
        *("pending", "scheduled", "submitted", "waiting", "starting", "started", "in_progress", "paused", "preempting"),
        *("canceled", "unfinished", "incomplete", "timed_out", "lost", "unknown"),
        # Slurm
        *("boot_fail", "bf", "ca", "cf", "configuring", "cg", "completing", "deadline", "dl", "f", "nf", "node_fail"),
        *("oom", "out_of_memory", "pd", "pr", "r", "rd", "resv_del_hold", "rf", "requeue_fed", "rh", "requeue_hold"),
        *("rq", "requeued", "rs", "resizing", "rv", "revoked", "s", "si", "signaling", "se", "special_exit", "so"),
        *("stage_out", "st", "suspended", "to"),
    }
)


def heading_of_state(names: dict[str, str]) -> str | None:
    """Return the column that holds the runs' states, from a table's headings by their folded names; None without."""
    return next((names[heading] for heading in HEADINGS if heading in names), None)


def finished(
    words: pd.Series, lines: npt.NDArray[np.int64], source: str
) -> tuple[npt.NDArray[np.bool_], dict[str, int]]:
    """Return a mask (n,) of the finished runs, and how many of the others are in which state.

    `lines` (n,) are the rows' line numbers in `source`. Raises UserError for a word that is not known, with its line
    and the list of those that are.
    """
    folded = words.astype("string").map(_fold, na_action="ignore")
    known = folded.isna() | folded.isin(FINISHED | UNFINISHED)
    if not known.all():
        first = int(np.flatnonzero(~known.to_numpy(dtype=bool))[0])
        word = printable(str(words.iloc[first]))[:40]
        raise UserError(
            f"{source}, line {lines[first]}: {printable(str(words.name))} is '{word}', and lmexp does not know whether "
            f"such a run has finished. Finished: {', '.join(sorted(FINISHED))}. Not finished: "
            f"{', '.join(sorted(UNFINISHED))}"
        )
    done = folded.isin(FINISHED).to_numpy(dtype=bool)
    others = words.astype("string").fillna("no state").to_numpy()[~done]
    return done, {printable(str(name)): int((others == name).sum()) for name in sorted(set(others))}


def _fold(word: str) -> str:
    """Return a word in lower case; Slurm writes `CANCELLED by 1000`, and sacct cuts long words: `OUT_OF_ME+`."""
    folded = re.sub(r"[\s-]+", "_", word.strip().lower().rstrip("+"))
    folded = re.sub(r"_by_\w+$", "", folded)
    if word.strip().endswith("+"):
        return next((known for known in sorted(FINISHED | UNFINISHED) if known.startswith(folded)), folded)
    return folded
