"""A forecast as a user has it: small runs, a sealed prediction, the larger run, and the score in the report."""

import json
from pathlib import Path

import pytest

from tests.conftest import Lmexp

WIDTHS, TOKENS = "model.d_model=4,8,12,16", "budget.tokens=5120,10240,20480"
LARGER = ["model.d_model=16", "budget.tokens=40960"]
FEW = ("--bootstraps", "100")


@pytest.mark.slow(60)
@pytest.mark.timeout(600)
def test_a_run_is_forecast_trained_and_scored(tmp_path: Path, lmexp: Lmexp, small: list[str]):
    runs = [*small, "model.n_layers=1", "model.n_heads=1", "optim.lr=1e-2", "evaluation.every=1"]
    assert lmexp("train", "-m", "--name", "ladder", *runs, WIDTHS, TOKENS, timeout=300).returncode == 0
    (largest,) = (tmp_path / "outputs" / "ladder").glob("d_model16-tokens20480-*/record.json")
    params = json.loads(largest.read_text())["rows"][-1]["n_params"]
    size = f"params={params},tokens=40960"
    sealed = lmexp("forecast", "ladder", "--predict", size, *FEW, "--json")
    assert sealed.returncode == 0, sealed.stderr
    (forecast,) = json.loads(sealed.stdout)["forecasts"]
    assert forecast["loss"]["low"] < forecast["loss"]["value"] < forecast["loss"]["high"]
    assert Path(forecast["file"]).parent == tmp_path / "outputs" / "ladder" / "forecasts"
    assert "1 pending" in lmexp("forecast", "--scores").stdout

    assert lmexp("train", "--name", "ladder", *runs, *LARGER).returncode == 0
    report = lmexp("report", "ladder")
    assert report.returncode == 0 and "1 forecast has a run" in report.stdout, report.stdout
    assert "Sealed forecasts" in (tmp_path / "outputs" / "ladder" / "report.html").read_text()
    scores = json.loads(lmexp("forecast", "--scores", "--json").stdout)
    (score,) = scores["sealed"]
    (record,) = (file for file in largest.parents[1].glob("*/record.json") if file.parent.name in score["scored_by"])
    assert score["measured"] == json.loads(record.read_text())["rows"][-1]["loss"]
    assert scores["calibration"]["scored"] == 1

    late = lmexp("forecast", "ladder", "--predict", size, *FEW)
    assert late.returncode == 2 and f"{score['scored_by']} is a run of" in late.stderr


WRONG = {
    "no sweep": (["nothing", "--at", "1e12"], "there is no sweep"),
    "nothing to forecast": (["demo"], "name what to forecast: --at FLOPS"),
    "no name": (["--at", "1e12"], "a forecast comes from the runs of one sweep"),
    "FLOPs below 0": (["demo", "--at=-1e12"], "--at -1e12: give a number above 0"),
    "a law of curves": (["demo", "--at", "1e12", "--law", "multipower"], "multipower is no law of the losses of runs"),
    "scores and a budget": (["--scores", "--at", "1e12"], "--scores shows the forecasts that are there"),
}


@pytest.mark.slow
def test_wrong_input_is_one_line_and_exit_code_2(lmexp: Lmexp):
    for words, message in WRONG.values():
        ended = lmexp("forecast", *words)
        assert ended.returncode == 2 and message in ended.stderr, ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1 and not ended.stdout
