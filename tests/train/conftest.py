"""Runs that can be started by hand, without the queue."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir


@pytest.fixture
def make_run(small: list[str], tmp_path: Path) -> Callable[..., RunDir]:
    """Make the run directory of a small config, with overrides; `place` tells equal runs apart."""

    def make(*words: str, place: str = "outputs") -> RunDir:
        (planned,) = resolve_sweep(None, [*small, *words], tmp_path / place).runs
        return RunDir.create(planned.run.path, planned.config)

    return make


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run side by side, and threads that outnumber the cores wait for each other; children count alike."""
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
