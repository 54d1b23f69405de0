"""torch.compile: the same training, and its time told apart."""

import shutil
from collections.abc import Callable

import pytest

from lmexp.runs.directory import RunDir
from lmexp.train.worker import main

MakeRun = Callable[..., RunDir]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_compiling_changes_the_time_and_not_the_result(make_run: MakeRun):
    rows = {}
    for compiled in (False, True):
        run = make_run(f"trainer.compile={compiled}")
        assert main(run.path) == 0
        (rows[compiled],) = run.read_record()
    assert rows[False]["compile_seconds"] is None and rows[True]["compile_seconds"] > 0.5
    assert rows[True]["loss"] == pytest.approx(rows[False]["loss"], abs=1e-4)
    assert rows[True]["dtype_compute"] == "float32"
    # Compiling is time of training, and falls into the warm-up: speed is that of the steps after it.
    assert rows[True]["train_seconds"] > rows[False]["train_seconds"] + 0.5
    assert rows[True]["step_ms_p95"] < 1e3 * rows[True]["compile_seconds"] / 2
