"""Which trials of a search are given up early."""

from pathlib import Path
from typing import Any

import pytest

from lmexp.config.sweeps import SearchSpec
from lmexp.launch.halving import Halving
from lmexp.resolve.planned import PlannedRun
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir
from tests.launch.searches import SPACE, points


@pytest.fixture
def runs(small: list[str], tmp_path: Path) -> list[PlannedRun]:
    return resolve_sweep(None, [*small, "seed=range(9)"], tmp_path / "outputs", name="s").runs


def halving(direction: str = "minimize", objective: str = "loss", **prune: Any) -> Halving:
    spec = {"trials": 9, "space": SPACE, "objectives": {objective: direction}, "prune": prune}
    return Halving(SearchSpec.model_validate(spec))


def test_the_rungs_are_powers_of_the_reduction_below_the_whole_budget():
    assert halving().rungs == [0.25, 0.75]
    assert halving(reduction=2, **{"from": 0.25}).rungs == [0.25, 0.5]
    assert halving(reduction=3, **{"from": 1 / 9}).rungs == pytest.approx([1 / 9, 1 / 3])


def test_nobody_is_given_up_before_enough_have_reached_the_rung(runs: list[PlannedRun]):
    judge = halving()
    points(runs[0], 9.0)
    points(runs[1], 1.0)
    assert judge.verdict(runs[0], runs) is None
    points(runs[2], 2.0)
    assert judge.verdict(runs[2], runs) == (
        "pruned at 25 % of its budget: loss 2.0000 is not among the best 1 of 3 (1.0000 would be)"
    )
    assert judge.verdict(runs[1], runs) is None
    points(runs[0], 9.0)  # the first at its rung went on; as its curve grows it is held against those that came later
    assert "loss 9.0000 is not among" in (judge.verdict(runs[0], runs) or "")


def test_the_best_third_goes_on_ties_included_and_each_rung_has_its_own(runs: list[PlannedRun]):
    judge = halving()
    for planned, loss in zip(runs[:6], [1, 2, 2, 4, 5, 6], strict=True):
        points(planned, loss)
    assert [judge.verdict(planned, runs) is None for planned in runs[:6]] == [True, True, True, False, False, False]
    for planned, loss in zip(runs[:2], [5, 1], strict=True):
        points(planned, loss, loss)  # at 0.5 and 0.75
    assert [judge.verdict(planned, runs) for planned in runs[:2]] == [None, None]  # two are not three
    assert judge.values(runs[0]) == [1, 5]  # at a rung counts what was scored there, not later
    points(runs[2], 3, 3)
    assert "at 75 %" in (judge.verdict(runs[2], runs) or "")


def test_a_curve_that_has_not_grown_is_not_read_again(runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch):
    judge = halving()
    for planned, loss in zip(runs[:3], [1.0, 2.0, 3.0], strict=True):
        points(planned, loss)
    assert judge.verdict(runs[2], runs)
    monkeypatch.setattr(RunDir, "read_curve", lambda run: pytest.fail("read again"))
    for _ in range(3):
        assert judge.verdict(runs[2], runs) is None


def test_predicted_final_losses_are_compared_and_a_run_without_one_goes_on(runs: list[PlannedRun]):
    finals: list[float | None] = [3.0, 2.0, None, 4.0]
    shares = []

    def predict(run: RunDir, share: float) -> float | None:
        shares.append(share)
        return finals[[planned.run for planned in runs].index(run)]

    spec = {"trials": 9, "space": SPACE, "prune": {"by": "predicted"}}
    judge = Halving(SearchSpec.model_validate(spec), predict)
    for planned, loss in zip(runs[:3], [1.0, 5.0, 9.0], strict=True):  # at the rung, the order is another one
        points(planned, loss)
    assert [judge.verdict(planned, runs) for planned in runs[:3]] == [None, None, None]  # two are not three
    points(runs[3], 1.0)
    assert judge.verdict(runs[3], runs) == (
        "pruned at 25 % of its budget: predicted_loss 4.0000 is not among the best 1 of 3 (2.0000 would be)"
    )
    assert set(shares) == {0.25}
    runs[3].run.write_record([{"run_id": "r", "loss": 1.5}])  # a finished run counts with what it reached
    runs[1].run.append_point({"step": 2, "train_loss": 9.0})
    assert "2.0000 is not among the best 1 of 3 (1.5000 would be)" in (judge.verdict(runs[1], runs) or "")


def test_accuracy_is_better_when_higher_and_a_budget_of_seconds_has_its_rungs_in_time(small: list[str], tmp_path: Path):
    words = [*small, "seed=range(3)", "budget.tokens=null", "budget.seconds=2"]
    runs = resolve_sweep(None, words, tmp_path / "outputs", name="s").runs
    judge = halving("maximize", "accuracy")
    for planned, accuracy in zip(runs, [0.5, 0.6, 0.7], strict=True):
        RunDir.create(planned.run.path, planned.config)
        planned.run.append_point({"tokens": 1, "seconds": 0.49, "accuracy": 0.1})  # before the rung
        assert judge.values(planned) == []
        planned.run.append_point({"tokens": 2, "seconds": 0.51, "accuracy": accuracy})
        assert judge.values(planned) == [accuracy]
    runs[0].run.append_point({"tokens": 3, "seconds": 0.6, "train_loss": 3.0})
    runs[2].run.append_point({"tokens": 3, "seconds": 0.6, "train_loss": 3.0})
    assert judge.verdict(runs[2], runs) is None
    assert "accuracy 0.5000 is not among the best 1 of 3 (0.7000 would be)" in (judge.verdict(runs[0], runs) or "")
