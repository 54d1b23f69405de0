"""Scores of a finished run besides its loss: those from training, and those that `lmexp eval` adds later.

scores.json holds them by task, with details that fit into no column: a confusion matrix, spans by type, generated
texts. Readers of the record get the scores as columns `score/<task>/<metric>`.
"""

import math
from typing import Any

from filelock import FileLock

from lmexp.errors import UserError
from lmexp.files import write_json
from lmexp.runs.directory import SCORES, RunDir, read_scores
from lmexp.runs.links import check_links


def failed_metrics(run: RunDir) -> dict[str, str]:
    """Return the reason of each metric of the user's own that failed on this run, by `task/metric`."""
    failed: dict[str, str] = {}
    for task, kept in (read_scores(run.path) or {}).items():
        reasons = (kept.get("details") or {}).get("failed_metrics") or {}
        failed |= {f"{task}/{metric}": reason for metric, reason in reasons.items()}
    return failed


def check_scores(run: RunDir) -> dict[str, Any]:
    """Return the scores that a run has; to be called before something is measured that is to join them.

    Raises UserError if scores.json cannot be read, or if a link leads out of the outputs.
    """
    check_links(run.path)
    known = read_scores(run.path)
    if known is None:
        raise UserError(f"{run.path / SCORES} cannot be read; move it away to score the run anew")
    return known


def add_scores(run: RunDir, task: str, scores: dict[str, float], details: dict[str, Any]) -> None:
    """Keep a run's scores on a task, in place of earlier ones; scores that are not finite are left out.

    Raises UserError if scores.json cannot be read, and is then left as it is, or if a link leads out of the outputs.
    """
    check_links(run.path)
    with FileLock(run.path / f".{SCORES}.lock"):
        known = check_scores(run)
        numbers = {name: float(value) for name, value in scores.items() if math.isfinite(value)}
        write_json(run.path / SCORES, known | {task: {"scores": numbers, "details": details}})
