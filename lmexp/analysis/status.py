"""What the runs of a sweep are doing, from their state files."""

from pathlib import Path

from lmexp.errors import UserError, nearest
from lmexp.runs.directory import RunDir, runs_in
from lmexp.runs.manifest import read_manifest
from lmexp.runs.record import Row


def status(folder: Path) -> list[Row]:
    """Return a row for each run of the sweep in `folder`: run, state, share done, training loss, reason.

    A run whose process is gone says so, whatever its state file still claims.
    Raises UserError when nothing was started there.
    """
    manifest = read_manifest(folder)
    runs = [RunDir(folder / cell.path) for cell in manifest.cells] if manifest else runs_in(folder)
    if not runs:
        known = [path.name for path in folder.parent.glob("[!.]*/")]
        raise UserError(f"no sweep '{folder.name}' was started in {folder.parent}.{nearest(folder.name, known)}")
    rows = []
    for run in runs:
        state = run.read_state()
        lost = state.state == "running" and not run.is_alive(state)
        rows.append(
            {
                "run": run.path.resolve().name,
                "state": "failed" if lost else state.state,
                "share": state.share,
                "train_loss": state.train_loss,
                "attempts": state.attempts,
                "reason": "its process is gone; run the sweep again to resume" if lost else state.reason,
            }
        )
    return rows
