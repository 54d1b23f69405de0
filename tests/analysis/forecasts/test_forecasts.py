"""A forecast is sealed before its run exists, and compared with the run when it does."""

import json
import math
import re
import shutil
import threading
import time
from pathlib import Path

import pytest
from scipy.stats import beta

from lmexp.analysis.forecasts.score import Calibration, Score, calibration, scores_of
from lmexp.analysis.table import load_study
from lmexp.cost.flops import count_run
from lmexp.errors import UserError
from lmexp.report.forecasts import calibration_sentences, forecast_rows, new_forecast_sentences
from lmexp.report.page.html import report_page
from lmexp.runs.directory import RunDir
from lmexp.runs.forecasts import ForecastFile, add_forecast, read_forecasts, seal_of
from lmexp.study.forecast import score_forecasts, seal_forecasts
from tests.analysis.forecasts.study import OPTIONS, add_run, new_config, true_loss, write_ladder

BIG = {"params": 1e9, "tokens": 5e10}
"""A run of 3e20 FLOPs, an order of magnitude above the largest of the ladder."""


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with a forecast of a big run, and one of a budget."""
    folder = write_ladder(tmp_path_factory.mktemp("outputs"))
    seal_forecasts(folder, [1e21], [BIG], OPTIONS)
    return folder


@pytest.fixture
def folder(ladder: Path, tmp_path: Path) -> Path:
    """A copy of that sweep."""
    return Path(shutil.copytree(ladder, tmp_path / "outputs" / "ladder"))


def scores(folder: Path) -> dict[str, Score]:
    """Return the scores of both forecasts, by what they are of."""
    return {each.file.forecast.at: each for each in scores_of([folder], folder.parent) if each.file.forecast}


def date_of(folder: Path) -> float:
    (first, _) = read_forecasts(folder)
    assert first.forecast is not None
    return first.forecast.date


def test_a_forecast_says_how_much_wider_the_lack_of_fit_makes_its_interval(folder: Path):
    forecast = read_forecasts(folder)[0].forecast
    assert forecast is not None and forecast.wider >= 1
    said = new_forecast_sentences(forecast.model_copy(update={"wider": 1.83}))
    assert said[1].startswith("The interval is 1.8 times as wide")
    assert len(new_forecast_sentences(forecast.model_copy(update={"wider": 1.0}))) == 1


def test_a_forecast_holds_what_it_rests_on(folder: Path):
    of_run, of_budget = (file.forecast for file in read_forecasts(folder))
    assert of_run.run == BIG | {"flops": pytest.approx(3e20)} and of_run.beyond == pytest.approx(3e20 / 2.4e19)
    assert of_budget.run["flops"] == 1e21 and of_budget.run["params"] * of_budget.run["tokens"] * 6 == pytest.approx(
        1e21
    )
    truth = true_loss(**BIG)
    assert of_run.loss.low < truth < of_run.loss.high and of_run.loss.high / of_run.loss.low < 1.2
    assert len(of_run.points) == 15 and of_run.points[0].record_sha256 is not None
    assert of_run.conditions == {
        "task": "causal_lm",
        "family": "gpt",
        "precision": "fp32",
        "context": 128,
        "vocab_size": 512,
        "tokenizer_fingerprint": "bytes",
        "validation_fingerprint": "text",
        "optim._target_": "torch.optim.AdamW",
        "schedule.name": "cosine",
        "init": "scratch",
    }
    assert of_run.code.startswith("source@") and of_run.date == pytest.approx(time.time(), abs=600)


def test_it_is_scored_by_the_run_that_began_after_it(folder: Path):
    assert {score.status for score in scores(folder).values()} == {"pending"}
    measured = 1.004 * true_loss(**BIG)
    add_run(folder.parent, **BIG, loss=measured, started=date_of(folder) + 60, seed=50, sweep="elsewhere")
    score = scores(folder)["run"]
    sealed = score.file.forecast.loss
    assert score.status == "scored" and score.run == "elsewhere/run-50-fp32" and score.measured == measured
    assert (score.value, score.low, score.high) == (sealed.value, sealed.low, sealed.high)
    assert score.is_inside is (sealed.low <= measured <= sealed.high)
    assert score.error == sealed.value / measured - 1
    assert score.off == pytest.approx(math.log(sealed.value / measured) / math.log(sealed.high / sealed.value))
    assert scores(folder)["flops"].status == "pending"


def test_a_forecast_of_a_budget_is_moved_along_its_law_to_the_size_that_was_run(folder: Path):
    forecast = scores(folder)["flops"].file.forecast
    theta = forecast.law.theta
    params, tokens = 1.3 * forecast.run["params"], forecast.run["tokens"] / 1.25

    def law(n: float, d: float) -> float:
        power = theta.get("gamma", 1.0)
        return theta["E"] + (theta["A"] * n ** -theta["alpha"] + theta["B"] * d ** -theta["beta"]) ** power

    add_run(folder.parent, params, tokens, law(int(params), int(tokens)), started=date_of(folder) + 60, seed=50)
    score = scores(folder)["flops"]
    assert score.status == "scored" and score.error == pytest.approx(0, abs=1e-12)
    assert score.high / score.value == pytest.approx(forecast.loss.high / forecast.loss.value)


@pytest.mark.parametrize("factor", [1.15, 1 / 1.15])
@pytest.mark.parametrize("quantity", ["params", "tokens"])
def test_a_run_of_another_size_is_not_its_run(folder: Path, quantity: str, factor: float):
    size = BIG | {quantity: factor * BIG[quantity]}
    add_run(folder.parent, **size, loss=true_loss(**size), started=date_of(folder) + 60, seed=50)
    assert scores(folder)["run"].status == "pending"


def test_of_several_runs_the_first_that_finished_counts(folder: Path):
    for seed, minutes in ((50, 9), (51, 5), (52, 7)):
        add_run(folder.parent, **BIG, loss=2.0 + seed / 100, started=date_of(folder) + 60 * minutes, seed=seed)
    assert scores(folder)["run"].run == "ladder/run-51-fp32"


def test_a_run_that_is_trained_in_another_way_is_not_its_run_and_the_report_says_why(folder: Path):
    add_run(folder.parent, **BIG, loss=2.0, started=date_of(folder) + 60, seed=50, precision="bf16")
    score = scores(folder)["run"]
    assert score.status == "pending"
    assert score.reason == "ladder/run-50-bf16 is of this size, but its precision is bf16, not fp32"


def test_a_run_that_began_before_it_proves_nothing(folder: Path):
    """As when it is copied from another machine afterwards."""
    add_run(folder.parent, **BIG, loss=true_loss(**BIG), started=date_of(folder) - 60, seed=50)
    score = scores(folder)["run"]
    assert score.status == "not scored" and score.reason == "ladder/run-50-fp32 began before it"


@pytest.mark.slow
def test_a_forecast_after_its_run_is_refused_with_the_runs_name(folder: Path):
    before = sorted(folder.parent.rglob("*.json"))
    with pytest.raises(UserError, match=r"ladder/run-1[0-4]-fp32 is a run of .*, finished 2026-01-01T00:00:10"):
        seal_forecasts(folder, [], [BIG | {"params": 5e8}, {"params": 2e8, "tokens": 6e9}], OPTIONS)
    assert sorted(folder.parent.rglob("*.json")) == before, "either all forecasts are written or none"
    add_run(folder.parent, **BIG, loss=2.0, seed=50, sweep="elsewhere")
    with pytest.raises(UserError, match=r"elsewhere/run-50-fp32 is a run of about 1.00G parameters and 50.0G tokens"):
        seal_forecasts(folder, [], [BIG], OPTIONS)


@pytest.mark.slow
def test_a_run_that_may_have_been_seen_refuses_a_forecast_and_one_that_only_waits_does_not(folder: Path):
    budget = new_config(50).budget.model_copy(update={"tokens": 10**9})
    of = new_config(50).model_copy(update={"budget": budget})
    run = RunDir.create(folder / "begun", of)
    size = {"params": count_run(of).n_params, "tokens": 10**9}
    seal_forecasts(folder, [], [size], OPTIONS)  # it is queued
    with run.lock(), pytest.raises(UserError, match=r"ladder/begun is a run of .* and is being trained"):
        seal_forecasts(folder, [], [size], OPTIONS)
    run.append_point({"step": 1, "tokens": 256, "train_loss": 5.0})
    run.update_state(state="preempted", attempts=1)
    with pytest.raises(UserError, match=r"ladder/begun is a run of .* and was begun, so its curve may have been seen"):
        seal_forecasts(folder, [], [size], OPTIONS)


def test_a_change_of_the_file_is_noticed_and_a_change_of_its_layout_is_not(folder: Path):
    add_run(folder.parent, **BIG, loss=true_loss(**BIG), started=date_of(folder) + 60, seed=50)
    file = scores(folder)["run"].file.path
    content = json.loads(file.read_text())
    file.write_text(json.dumps(dict(reversed(content.items()))))
    assert scores(folder)["run"].status == "scored"
    content["loss"]["high"] *= 1.01
    file.write_text(json.dumps(content))
    score = scores(folder)["run"]
    assert (score.status, score.reason) == ("not scored", "it was changed after it was sealed")
    assert calibration(list(scores(folder).values())).scored == 0


FORGED: list[tuple[dict[str, object], str]] = [
    ({"loss": {"value": 5e-324, "low": 5e-324, "high": 5e-324}}, "loss.value: the number is too small or too large"),
    ({"loss": {"value": 2.0, "low": 3.0, "high": 4.0}}, "loss: the prediction is outside its interval"),
    ({"date_utc": "2020-01-01T00:00:00+00:00"}, "date and date_utc are two dates"),
    ({"sweep": "x" * 100_000}, "sweep: String should have at most 500 characters"),
    ({"conditions": {"x" * 100_000: "y"}}, f"conditions.{'x' * 89}: String should have at most 500 characters"),
]


@pytest.mark.parametrize(("change", "problem"), FORGED, ids=range(len(FORGED)))
def test_a_forecast_with_a_right_seal_and_wrong_content_is_named_and_hides_no_other(
    folder: Path, change: dict[str, object], problem: str
):
    add_run(folder.parent, **BIG, loss=true_loss(**BIG), started=date_of(folder) + 60, seed=50)
    content = json.loads(scores(folder)["run"].file.path.read_text()) | change
    forged = json.dumps(content | {"seal": seal_of(content)})
    (folder / "forecasts" / "z.json").write_text(forged)
    *good, bad = scores_of([folder], folder.parent)
    assert [each.status for each in good] == ["scored", "pending"] and bad.status == "not scored"
    assert bad.reason == f"it is no forecast: {problem}"
    with pytest.raises(ValueError, match=r"^it is no forecast$"):
        add_forecast(folder, forged.encode())


def test_a_key_that_occurs_twice_makes_a_file_no_forecast(folder: Path):
    file = scores(folder)["run"].file.path
    twice = f'{{"loss": {{"value": 1, "low": 1, "high": 1}}, {file.read_text()[1:]}'
    with pytest.raises(ValueError, match=r"^it is no forecast$"):
        add_forecast(folder, twice.encode())
    file.write_text(twice)
    assert [each.reason for each in scores_of([folder], folder.parent) if each.file.path == file] == [
        "it cannot be read as a forecast"
    ]


def test_a_law_that_gives_no_loss_at_the_size_that_was_run_scores_nothing(folder: Path):
    run = {"params": 1.05 * BIG["params"], "tokens": BIG["tokens"]}
    add_run(folder.parent, **run, loss=2.0, started=date_of(folder) + 60, seed=50)
    file = scores(folder)["run"].file.path
    content = json.loads(file.read_text())
    steep = dict.fromkeys(content["law"]["theta"], 0.0) | {"A": 1.0, "alpha": 12_000.0}
    content["law"] |= {"name": "chinchilla", "theta": steep, "effective": [0.99, 1.0]}
    content["loss"] = dict.fromkeys(("value", "low", "high"), 1e-99)
    file.write_text(json.dumps(content | {"seal": seal_of(content)}))
    score = scores(folder)["run"]
    assert (score.status, score.reason) == ("not scored", "its law gives no loss at the size that was run")


@pytest.mark.parametrize("is_link", [True, False], ids=["link", "file"])
def test_no_forecast_is_sealed_outside_the_outputs_or_in_place_of_a_file(folder: Path, tmp_path: Path, is_link: bool):
    shutil.rmtree(folder / "forecasts")
    if is_link:
        (tmp_path / "elsewhere").mkdir()
        (folder / "forecasts").symlink_to(tmp_path / "elsewhere")
    else:
        (folder / "forecasts").write_text("mine")
    with pytest.raises(UserError, match="leads out of" if is_link else "is a file"):
        seal_forecasts(folder, [], [BIG], OPTIONS)
    assert not list((tmp_path / "elsewhere").glob("*")) if is_link else (folder / "forecasts").read_text() == "mine"


def test_a_run_that_no_numbers_can_hold_is_refused(folder: Path):
    with pytest.raises(UserError, match=r"cannot be sealed: run\.params: the number is too small or too large"):
        seal_forecasts(folder, [], [{"params": 1e120, "tokens": 1e9}], OPTIONS)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seal": 1}', "[" * 100_000, '{"seal": "a", "loss": NaN}'])
def test_a_file_that_is_no_forecast_is_named_and_hides_no_other(folder: Path, content: str):
    (folder / "forecasts" / "0.json").write_text(content)
    *others, last = scores_of([folder], folder.parent)
    assert last.status == "not scored" and last.file.forecast is None and last.reason
    assert [other.status for other in others] == ["pending", "pending"]


@pytest.mark.slow
def test_two_forecasts_at_once_are_both_whole(folder: Path):
    errors: list[BaseException] = []

    def seal(params: float) -> None:
        try:
            seal_forecasts(folder, [], [{"params": params, "tokens": 5e10}], OPTIONS)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=seal, args=(params,)) for params in (2e9, 3e9, 2e9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    files = list(read_forecasts(folder))
    assert all(file.problem is None for file in files)
    assert {file.forecast.run["params"] for file in files if file.forecast.at == "run"} == {1e9, 2e9, 3e9}
    assert not [name for name in (folder / "forecasts").iterdir() if name.suffix != ".json"]


@pytest.mark.slow
def test_the_page_and_the_terminal_show_the_same_forecasts(folder: Path, capsys: pytest.CaptureFixture[str]):
    add_run(folder.parent, **BIG, loss=1.004 * true_loss(**BIG), started=date_of(folder) + 60, seed=50)
    shown = scores_of([folder], folder.parent)
    page = re.sub(r'<span class="long">(.*?)</span>', r"\1", report_page(load_study([folder])))
    for row in forecast_rows(shown):
        for cell in row:
            assert f"<td>{cell}</td>" in page
    (sentence, *_) = calibration_sentences(calibration(shown))
    assert sentence in page and "1 forecast has a run" in sentence and "1 pending" in sentence


def fake(error: float, half: float, run: str) -> Score:
    """Return the score of a forecast with an error in ln(loss)."""
    value = 2 * math.exp(error)
    return Score(
        ForecastFile(Path("x"), None), "scored", None, run, 2.0, value, value / math.exp(half), value * math.exp(half)
    )


def test_calibration_is_the_share_inside_with_its_exact_interval():
    errors = [0.001, -0.004, 0.01, -0.02, 0.03]
    result = calibration([fake(error, 0.01 + 1e-9, run) for error, run in zip(errors, "aabcd", strict=True)])
    assert (result.scored, result.runs, result.inside, result.share) == (5, 4, 3, 0.6)
    assert result.low == pytest.approx(beta.ppf(0.025, 3, 3)) and result.high == pytest.approx(beta.ppf(0.975, 4, 2))
    assert result.median_error == pytest.approx(math.exp(0.01) - 1)
    assert result.interval_score == pytest.approx(0.02 + 40 * (0.01 + 0.02) / 5, abs=1e-6)
    assert calibration([]) == Calibration(0, 0, 0, 0, 0, None, None, None, None)


WRONG = {
    "no sweep": ("nothing", [1e21], [], "there is no sweep"),
    "nothing to forecast": ("ladder", [], [], "a forecast takes a budget in FLOPs"),
    "a run without tokens": ("ladder", [], [{"params": 1e9}], "add tokens="),
    "a precision that is no axis": ("ladder", [], [BIG | {"precision": "fp8"}], "precision is not an axis of this fit"),
}


@pytest.mark.slow  # of each, the law is fitted first
@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_sentence_and_writes_nothing(folder: Path, name: str):
    sweep, budgets, runs, message = WRONG[name]
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match=message):
        seal_forecasts(folder.parent / sweep, budgets, runs, OPTIONS)
    assert sorted(folder.rglob("*")) == before


def test_too_few_runs_for_a_law_are_refused(tmp_path: Path):
    for seed, params in enumerate((1e7, 2e7, 4e7, 8e7, 1.6e8)):
        add_run(tmp_path, params, 1e9 * (1 + seed % 2), 3 - seed / 10, seed=seed)
    with pytest.raises(UserError, match=r"no law could be fitted: .*chinchilla has 5 numbers to find"):
        seal_forecasts(tmp_path / "ladder", [1e20], [], OPTIONS)


def test_without_any_forecast_the_scores_say_how_to_make_one(tmp_path: Path):
    write_ladder(tmp_path)
    with pytest.raises(UserError, match="there is no forecast in"):
        score_forecasts(tmp_path)
    with pytest.raises(UserError, match="there is no sweep in"):
        score_forecasts(tmp_path, [tmp_path / "laddr"])
