"""Runs that `--stop-if` stops, and expressions that it refuses."""

from pathlib import Path

import numpy as np
import pytest

from lmexp.errors import UserError
from lmexp.launch.policy import Policy
from lmexp.runs.directory import RunDir
from lmexp.runs.state import State
from lmexp.study.seeds import check_policy
from lmexp.study.stop_if import StopIf
from tests.analysis.final_loss.lawful import drawn, run_of


@pytest.fixture
def now(tmp_path: Path) -> RunDir:
    """A run at half its budget, beside five that have finished; all end between 2 and 4 nats."""
    for seed in range(5):
        run_of(tmp_path, f"done{seed}", drawn(np.random.default_rng(seed), noise=0.002))
    return run_of(tmp_path, "now", drawn(np.random.default_rng(9), noise=0.002), up_to=0.5)


def test_a_run_is_stopped_by_its_predicted_loss_and_the_reason_has_the_number_and_the_rule(now: RunDir):
    assert StopIf("predicted_loss > 4").why(now, now.path.parent) is None
    why = StopIf(" predicted_loss > 2 and share >= 0.5").why(now, now.path.parent)
    assert why is not None and why.startswith("pruned at 50 % of its budget: predicted_loss is ")
    assert why.endswith("share is 0.5; --stop-if 'predicted_loss > 2 and share >= 0.5'")
    assert StopIf("predicted_low > predicted_high or loss > 9").why(now, now.path.parent) is None


def test_without_enough_finished_runs_there_is_no_prediction_and_no_run_is_stopped_by_it(now: RunDir):
    for seed in (0, 1):
        (now.path.parent / f"done{seed}-0" / "record.json").unlink()
    assert StopIf("predicted_loss > 0").why(now, now.path.parent) is None
    assert StopIf("loss > 0").why(now, now.path.parent)


def test_a_curve_that_has_not_grown_is_not_judged_again(now: RunDir, monkeypatch: pytest.MonkeyPatch):
    rule = StopIf("loss > 99")
    assert rule.why(now, now.path.parent) is None
    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "read_curve", lambda run: pytest.fail("read again"))
        assert rule.why(now, now.path.parent) is None
    now.append_point({"step": 501, "tokens": 501_000, "loss": 100.0})
    assert rule.why(now, now.path.parent)


def test_a_run_without_a_curve_is_not_stopped(tmp_path: Path):
    assert StopIf("loss is null").why(RunDir(tmp_path / "missing"), tmp_path) is None


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("predictedloss > 4", "there is no column 'predictedloss'. Did you mean 'predicted_loss'"),
        ("loss >", "at its end: something is missing"),
        ("loss", "neither true nor false"),
        ("true", "uses none of predicted_loss"),
        ("", "at its end: something is missing"),
        ("__import__('os')", "not allowed here"),
    ],
)
def test_wrong_expressions_are_refused(expression: str, said: str):
    with pytest.raises(UserError, match="--stop-if") as problem:
        StopIf(expression)
    assert said in str(problem.value)


def test_only_the_rule_that_stopped_a_run_leaves_it_stopped():
    reason = "pruned at 50 % of its budget: loss is 5; --stop-if 'loss > 4'"
    stopped = State(state="cancelled", reason=reason)
    assert Policy(stop_if=StopIf("loss > 4")).has_given_up(stopped)
    assert not Policy(stop_if=StopIf("loss > 5")).has_given_up(stopped)
    assert not Policy().has_given_up(stopped)
    assert not Policy(stop_if=StopIf("loss > 4")).has_given_up(State(state="failed", reason=reason))


def test_seeds_that_follow_from_results_need_every_result():
    with pytest.raises(UserError, match="--seeds auto"):
        check_policy(Policy(stop_if=StopIf("loss > 4")))
