"""Final losses are predicted from the files of a sweep, whatever state these are in."""

from pathlib import Path

import numpy as np
import pytest

from lmexp.analysis.final_loss.predict import (
    FinalLossPredictor,
    Prediction,
    add_predictions,
    calibrations_in_words,
)
from lmexp.config.schedules import OutsideSchedule
from lmexp.config.schema import BudgetConfig, EvaluationConfig
from lmexp.runs.directory import RunDir
from lmexp.runs.state import State
from tests.analysis.final_loss.lawful import TOKENS, drawn, run_of

NOISE = 0.002


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep with five finished runs."""
    for seed in range(5):
        run_of(tmp_path, f"done{seed}", drawn(np.random.default_rng(seed), noise=NOISE))
    return tmp_path


def training(folder: Path, up_to: float = 0.5, name: str = "now", **changes: object) -> tuple[RunDir, float]:
    curve = drawn(np.random.default_rng(99), noise=NOISE)
    assert curve.final is not None
    return run_of(folder, name, curve, up_to, **changes), curve.final


def test_a_run_that_trains_gets_its_final_loss_with_an_interval_and_the_finished_ones_tell_how_good_it_is(folder: Path):
    run, final = training(folder)
    predictor = FinalLossPredictor(folder)
    made = predictor.predict(run)
    assert isinstance(made, Prediction) and (made.share, made.finished, made.kind) == (0.5, 5, "loss")
    assert made.low < final < made.high and made.loss == pytest.approx(final, rel=5 * NOISE)
    at = {row.share: row for row in predictor.calibrations()}
    assert sorted(at) == [0.25, 0.5, 0.75] and all(row.runs == 5 for row in at.values())
    assert all(row.median_error < 5 * NOISE for row in at.values())
    (sentence,) = calibrations_in_words(predictor.calibrations())
    assert sentence.startswith("Final losses predicted at 25 %, 50 % and 75 % of training were 0.")


def test_a_run_that_finishes_meanwhile_counts_at_once(folder: Path):
    run, _ = training(folder)
    predictor = FinalLossPredictor(folder)
    assert isinstance(first := predictor.predict(run), Prediction) and first.finished == 5
    run_of(folder, "late", drawn(np.random.default_rng(7), noise=NOISE))
    assert isinstance(second := predictor.predict(run), Prediction) and second.finished == 6


@pytest.mark.parametrize("finished, there", [(1, "there is 1"), (3, "there are 3")])
def test_with_too_few_finished_runs_nothing_is_predicted_and_the_reason_says_what_it_takes(
    tmp_path: Path, finished: int, there: str
):
    for seed in range(finished):
        run_of(tmp_path, f"done{seed}", drawn(np.random.default_rng(seed)))
    run, _ = training(tmp_path)
    predictor = FinalLossPredictor(tmp_path)
    assert predictor.predict(run) == f"it takes 4 finished runs of the same kind with such a curve, and {there}"
    assert predictor.calibrations() == []


def test_lines_that_are_no_points_change_nothing(folder: Path):
    run, _ = training(folder)
    before = FinalLossPredictor(folder).predict(run)
    file = run.path / "metrics.jsonl"
    again = file.read_bytes().splitlines(keepends=True)[-1]  # a restart repeats a point
    file.write_bytes(file.read_bytes() + again + b'{"tokens": 505000, "loss": 1e200}\n')
    file.write_bytes(file.read_bytes() + b'{"tokens": 510000, "loss": NaN}\n["x"]\n{"loss": 3}\n{"tokens": 52')
    assert FinalLossPredictor(folder).predict(run) == before


def test_training_losses_serve_as_long_as_there_is_no_evaluation(folder: Path):
    for run in [*(RunDir(path) for path in sorted(folder.glob("done*"))), training(folder)[0]]:
        file = run.path / "metrics.jsonl"
        file.write_text(file.read_text().replace('"loss"', '"train_loss"'))
    made = FinalLossPredictor(folder).predict(run)
    assert isinstance(made, Prediction) and made.kind == "train_loss"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"evaluation": EvaluationConfig(patience=2)}, "with evaluation.patience"),
        ({"budget": BudgetConfig(tokens=TOKENS, milestones=[0.5])}, "with budget.milestones"),
        ({"schedule": OutsideSchedule.model_validate({"_target_": "my.halved"})}, "its schedule is code of your own"),
    ],
)
def test_runs_whose_end_does_not_follow_from_the_curve_are_named(folder: Path, changes: dict[str, object], reason: str):
    run, _ = training(folder)
    run.write_config(run.read_config().model_copy(update=changes))
    made = FinalLossPredictor(folder).predict(run)
    assert isinstance(made, str) and reason in made


@pytest.mark.parametrize("up_to", [0.001, 0.04])
def test_before_the_first_point_after_the_warm_up_nothing_is_predicted(folder: Path, up_to: float):
    run, _ = training(folder, up_to)
    assert FinalLossPredictor(folder).predict(run) == "its curve has no point after the warm-up yet"
    run.write_state(State(state="running"))
    assert FinalLossPredictor(folder).predict(run) == "its curve has no point after the warm-up yet"


def test_only_runs_of_the_same_family_and_vocabulary_are_compared(folder: Path):
    run, _ = training(folder)
    config = run.read_config()
    run.write_config(config.model_copy(update={"model": config.model.model_copy(update={"vocab_size": 300})}))
    assert (
        FinalLossPredictor(folder).predict(run)
        == "it takes 4 finished runs of the same kind with such a curve, and there are 0"
    )


def test_a_damaged_config_or_record_hides_no_other_run(folder: Path):
    run, _ = training(folder)
    (folder / "done0-0" / "config.yaml").write_text("{")
    run_of(folder, "bad", drawn(np.random.default_rng(3)))
    (folder / "bad-0" / "record.json").write_text("[")
    made = FinalLossPredictor(folder).predict(run)
    assert isinstance(made, Prediction) and made.finished == 4


def test_rows_of_status_have_the_prediction_of_runs_that_train(folder: Path):
    training(folder)
    rows = [{"run": "now-0", "state": "running"}, {"run": "done0-0", "state": "done"}]
    now, done = add_predictions(rows, FinalLossPredictor(folder))
    assert now["predicted_low"] < now["predicted_loss"] < now["predicted_high"] and now["predicted_at"] == 0.5
    assert now["not_predicted"] is None and done["predicted_loss"] is None and done["not_predicted"] is None
