"""A search over learning rate and depth, for tests: as a sweep file, and resolved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir

RATE = {"low": 1e-4, "high": 1e-1, "log": True}
SPACE = {"optim.lr": RATE, "model.n_layers": {"low": 1, "high": 3}}
Resolve = Callable[..., Sweep]


def sweep_file(folder: Path, search: dict[str, Any], **beside: Any) -> Path:
    file = folder / "sweeps" / "s.yaml"
    file.parent.mkdir(exist_ok=True)
    sweep = {"question": "Which?", "search": {"trials": 4, "space": SPACE, **search}, **beside}
    file.write_text("# A search\n# @package _global_\n" + yaml.safe_dump({"sweep": sweep}))
    return file


@pytest.fixture
def resolve(small: list[str], tmp_path: Path) -> Resolve:
    """Resolve a search over learning rate and depth, with changes to its spec and with words."""

    def resolved(*words: str, **search: Any) -> Sweep:
        is_local = not any(word.startswith("launcher=") for word in words)
        shared = [word for word in small if is_local or not word.startswith("launcher.")]
        return resolve_sweep(str(sweep_file(tmp_path, search)), [*shared, *words], tmp_path / "outputs")

    return resolved


def points(planned: PlannedRun, *losses: float, every: float = 0.25) -> None:
    """Write a curve: training points, and an evaluation at each share."""
    if not planned.run.path.exists():
        RunDir.create(planned.run.path, planned.config)
    done = sum("loss" in point for point in planned.run.read_curve())
    for index, loss in enumerate(losses, done + 1):
        tokens = round(index * every * (planned.horizon.tokens or 0))
        planned.run.append_point({"step": index, "tokens": tokens, "seconds": 2.0 * index * every, "train_loss": 9.0})
        planned.run.append_point({"step": index, "tokens": tokens, "seconds": 2.0 * index * every, "loss": loss})
