"""A sweep whose final losses are predicted while it trains, and a hopeless run that is stopped. As a user types it."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from lmexp.runs.directory import RunDir, runs_in
from tests.conftest import Lmexp

TOKENS = 192_000
"""Tokens of each run."""
WORDS = (
    f"budget.tokens={TOKENS}",
    "evaluation.every=0.1",
    "checkpoint.every=0.1",
    "trainer.log_every=2",
    "optim.lr=3e-3",
)


def rows_of(lmexp: Lmexp) -> list[dict[str, Any]]:
    shown = lmexp("status", "s", "--json")
    assert shown.returncode == 0, shown.stderr
    rows: list[dict[str, Any]] = json.loads(shown.stdout)["runs"]
    return rows


@pytest.mark.slow(120)
def test_the_end_of_a_run_is_predicted_while_it_trains_and_a_hopeless_one_is_stopped(
    lmexp: Lmexp, small: list[str], tmp_path: Path
):
    (tmp_path / "s.yaml").write_text("sweep: {grid: {seed: [0, 1, 2, 3]}}\n")
    words = ["s.yaml", *small, *WORDS, "launcher.slots=1"]
    assert lmexp("sweep", *words, timeout=300).returncode == 0
    folder = tmp_path / "outputs" / "s"
    finals = [run.read_record()[-1]["loss"] for run in runs_in(folder)]
    text = " ".join(lmexp("status", "s").stdout.split())
    assert "Final losses predicted at 25 %, 50 % and 75 % of training were" in text and "of 4 finished runs." in text

    # Two more runs, which are watched.
    more = [*words, "seed=4,5"]
    assert lmexp("sweep", *more, "--detach").returncode == 0
    seen: list[dict[str, Any]] = []
    deadline = time.monotonic() + 300
    while sum(run.read_state().state == "done" for run in runs_in(folder)) < 6:
        seen += [row for row in rows_of(lmexp) if row["predicted_loss"] is not None]
        assert time.monotonic() < deadline, "the sweep does not end"
        time.sleep(0.2)
    assert seen, "no prediction was shown while a run was training"
    nearer = []
    for row in seen:
        run = RunDir(folder / row["run"])
        final, curve = run.read_record()[-1]["loss"], [point for point in run.read_curve() if "loss" in point]
        now = max((p for p in curve if p["tokens"] <= row["predicted_at"] * TOKENS + 1), key=lambda p: p["tokens"])
        assert row["predicted_low"] < row["predicted_loss"] < row["predicted_high"]
        nearer.append(abs(row["predicted_loss"] - final) < abs(now["loss"] - final))
    assert sum(nearer) > len(nearer) / 2  # nearer to the end than the loss so far

    # With such a learning rate, a run ends far above the others.
    limit = 1.1 * max(finals)
    hopeless = [*words, "seed=0,1", "optim.lr=3e-3,1e-7", "--stop-if", f"predicted_low > {limit:.4f}"]
    ended = lmexp("sweep", *hopeless, timeout=300)
    assert ended.returncode == 0, ended.stderr
    stopped = [row for row in rows_of(lmexp) if row["state"] == "cancelled"]
    assert len(stopped) == 2 and all("lr1e-7" in row["run"] for row in stopped)
    assert all(row["reason"].startswith("pruned at ") and "predicted_low is " in row["reason"] for row in stopped)
    steps = [len(RunDir(folder / row["run"]).read_curve()) for row in stopped]
    again = lmexp("sweep", *hopeless, timeout=300)  # leaves them stopped
    assert again.returncode == 0 and [len(RunDir(folder / row["run"]).read_curve()) for row in stopped] == steps
    assert lmexp("sweep", *hopeless[:-2], timeout=300).returncode == 0  # without the rule, they go on
    assert all(row["state"] == "done" for row in rows_of(lmexp))
