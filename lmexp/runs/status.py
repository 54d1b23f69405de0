"""What the runs of a sweep are doing, from their state files."""

from pathlib import Path

from lmexp.runs.coordinators import has_coordinator
from lmexp.runs.find import runs_of
from lmexp.runs.record import Row
from lmexp.runs.state import State


def status(folder: Path) -> list[Row]:
    """Return a row for each run of the sweep in `folder`; seconds_left is None if it cannot be estimated.

    A run whose process is gone counts as failed, whatever its state file says.
    Raises UserError if nothing was started there.
    """
    what_now = "it will be started again" if has_coordinator(folder) else "run the sweep again to resume"
    rows = []
    for run in runs_of(folder):
        state, lost = run.read_lost()
        runs = state.state == "running" and not lost
        rows.append(
            {
                "run": run.path.resolve().name,
                "state": "failed" if lost else state.state,
                "steps": state.steps,
                "share": 1.0 if state.state == "done" else state.share,  # early stopping leaves some of the budget
                "train_loss": state.train_loss,
                "tokens_per_second": state.tokens_per_second if runs else None,
                "seconds_left": seconds_left(state) if runs else None,
                "attempts": state.attempts,
                "job": state.job,
                "reason": f"its process is gone; {what_now}" if lost else state.reason,
            }
        )
    return rows


def seconds_left(state: State) -> float | None:
    """Return how many seconds of training are left at the present speed; None if that is not known yet."""
    if not (state.share and state.tokens and state.tokens_per_second):
        return None
    return state.tokens * (1 / state.share - 1) / state.tokens_per_second
