"""What the runs of a sweep are doing, from their state files."""

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from lmexp.runs.coordinators import has_coordinator
from lmexp.runs.differences import differences, flat_config
from lmexp.runs.directory import RunDir
from lmexp.runs.find import runs_of
from lmexp.runs.record import Row
from lmexp.runs.state import State
from lmexp.units import duration, si


def status(folder: Path) -> list[Row]:
    """Return a row for each run of the sweep in `folder`; seconds_left is None if it cannot be estimated.

    A run whose process is gone counts as failed, whatever its state file says. `differs` has the keys of the config
    that tell runs with the same name apart, such as two `lmexp train` with different overrides. It is empty for a run
    whose name no other run has.
    Raises UserError if nothing was started there.
    """
    what_now = "it will be started again" if has_coordinator(folder) else "run the sweep again to resume"
    rows = []
    runs = runs_of(folder)
    for run, differs in zip(runs, _differences(runs), strict=True):
        state, lost = run.read_lost()
        is_alive = state.state == "running" and not lost
        rows.append(
            {
                "run": run.path.resolve().name,
                "differs": differs,
                "state": "failed" if lost else state.state,
                "steps": state.steps,
                "share": 1.0 if state.state == "done" else state.share,  # early stopping leaves some of the budget
                "train_loss": state.train_loss,
                "tokens_per_second": state.tokens_per_second if is_alive else None,
                "seconds_left": seconds_left(state) if is_alive else None,
                "attempts": state.attempts,
                "job": state.job,
                "reason": f"its process is gone; {what_now}" if lost else state.reason,
            }
        )
    return rows


def seconds_left(state: State) -> float | None:
    """Return how many seconds are left until the budget is spent, evaluations included; None if not known yet."""
    whole = state.seconds_per_budget
    return None if whole is None else (1 - (state.share or 0.0)) * whole


def progress_text(state: State) -> str:
    """Return how far a run is that has begun to train: step, share of the budget, training loss, speed, time left."""
    facts = [f"step {state.steps:,}", f"{state.share or 0.0:.0%}"]
    if state.train_loss is not None:
        facts.append(f"train loss {state.train_loss:.3f}")
    if (state.share or 0.0) >= 1:
        return ", ".join([*facts, "scores the trained model"])
    if state.tokens_per_second is not None:
        facts.append(f"{si(state.tokens_per_second)} tokens/s")
    left = seconds_left(state)
    return ", ".join([*facts, *([f"{duration(left)} left"] if left is not None else [])])


def slug(name: str) -> str:
    """Return the name of a run without its hash."""
    return name.rpartition("-")[0] or name


def _differences(runs: Sequence[RunDir]) -> list[dict[str, Any]]:
    """Return for each run the keys that tell it from the other runs whose names differ only in the hash."""
    of_slug: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        of_slug.setdefault(slug(run.path.resolve().name), []).append(i)
    differs: list[dict[str, Any]] = [{} for _ in runs]
    for same in of_slug.values():
        if len(same) > 1:
            configs = [_config(runs[i].path, _changed(runs[i].path / "config.yaml")) for i in same]
            for i, values in zip(same, differences(configs), strict=True):
                differs[i] = values
    return differs


@lru_cache(maxsize=2048)
def _config(path: Path, changed: int | None) -> dict[str, Any]:
    """Return the flat config of a run; `status --watch` asks again every second."""
    return flat_config(RunDir(path))


def _changed(file: Path) -> int | None:
    with suppress(OSError):
        return file.stat().st_mtime_ns
    return None
