"""`lmexp fit` as a user has it: a table of points or a study in, the answer and a page out; wrong input is one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, chinchilla
from tests.analysis.scaling.relations.studies import rate_grid, scored_runs
from tests.conftest import Lmexp
from tests.report.synthetic import write_study

FEW = ("--bootstraps", "100")


@pytest.fixture
def points(tmp_path: Path) -> Path:
    """Runs of a known law at five budgets and seven sizes each."""
    theta = PUBLISHED_LAWS["epoch"].theta
    flops = np.repeat(np.geomspace(1e17, 1e21, 5), 7)
    params = chinchilla.optimum(theta, flops).params * np.tile(np.geomspace(0.25, 4, 7), 5)
    tokens = flops / (6 * params)
    loss = chinchilla.loss(theta, params, tokens) * np.exp(np.random.default_rng(0).normal(0, 0.002, 35))
    rows = [",".join(f"{value:.8g}" for value in row) for row in zip(params, tokens, flops, loss, strict=True)]
    file = tmp_path / "points.csv"
    file.write_text("\n".join(["N,D,C,val_loss", *rows, "1e9,2e10,1.2e20,nan"]) + "\n")
    return file


def test_a_file_of_points_gives_the_answer_a_page_and_one_document(points: Path, lmexp: Lmexp):
    ended = lmexp("fit", "points.csv", "--flops", "1e22", "--serve", "1e12", *FEW, COLUMNS="80")
    assert ended.returncode == 0, ended.stderr
    for words in ("35 points: ", "Left out: 1 no loss.", "chinchilla", "extra", "kaplan", "approach_2",
                  "10x the largest run", "1.00T tokens served", "fit.html"):  # fmt: skip
        assert words in ended.stdout, words
    assert max(map(len, ended.stdout.splitlines())) <= 80
    page = (points.parent / "fit.html").read_text()
    assert "form-action 'none'" in page and "<title>" in page
    assert "points.csv" in page and "vegaEmbed" in page
    document = json.loads((points.parent / "fit.json").read_text())
    said = json.loads(lmexp("fit", "points.csv", "--flops", "1e22", "--serve", "1e12", *FEW, "--json").stdout)
    assert document.items() <= said.items()
    (best,) = (row for row in document["best"] if row["by"] == "chinchilla")
    truth = float(chinchilla.optimum(PUBLISHED_LAWS["epoch"].theta, 1e22).params)
    assert best["params"]["low"] < truth < best["params"]["high"]


@pytest.mark.slow
def test_charts_are_written_as_files(points: Path, lmexp: Lmexp):
    ended = lmexp("fit", "points.csv", "--charts", "svg", "--output", "out", *FEW)
    assert ended.returncode == 0, ended.stderr
    written = {file.name for file in (points.parent / "out" / "charts").iterdir()}
    assert written == {f"fit-{name}.svg" for name in ("loss", "sizes", "isoflop", "residuals")}


@pytest.mark.slow
def test_a_study_is_fitted_against_a_cost(tmp_path: Path, lmexp: Lmexp):
    write_study(tmp_path / "outputs")
    ended = lmexp("fit", "demo", "--cost", "dollars")
    assert ended.returncode == 2 and "no run has 'dollars' as a cost" in ended.stderr
    ended = lmexp("fit", "demo")
    assert ended.returncode == 2 and "Traceback" not in ended.stderr


WRONG = {
    "no file": (["nothing.csv"], "there is no file nothing.csv"),
    "no sweep": (["nothing"], "there is no sweep"),
    "text": (["text.csv"], "text.csv, line 3: tokens is 'lots', no number"),
    "empty": (["empty.csv"], "empty.csv is empty"),
    "one ratio": (["line.csv"], "All runs lie at one D/N"),
    "one run": (["one.csv"], "1 size of model"),
    "a budget that is none": (["points.csv", "--flops", "much"], "--flops much: give a number above 0"),
    "a negative budget": (["points.csv", "--flops", "-1e20"], "--flops -1e20: give a number above 0"),
    "amounts without a cost": (["points.csv", "--at", "5"], "--at gives amounts of a --cost"),
    "a cost and a budget": (["points.csv", "--cost", "dollars", "--flops", "1e9"], "--cost fits the loss against one"),
    "a law that is none": (["points.csv", "--law", "overtrainig"], "Did you mean 'overtraining'?"),
    "a run without tokens": (["points.csv", "--law", "kaplan", "--predict", "params=1e9"], "add tokens="),
    "no optimizers": (["points.csv", "--law", "optimizers"], "it takes a column 'optimizer' with two at least"),
    "no such quantity": (["points.csv", "--predict", "width=3"], "--predict width=3: give params=, tokens="),
    "compute alone": (["compute.csv"], "FLOPs alone are enough for --cost train_flops"),
    "a format that is none": (["points.csv", "--charts", "bmp"], "--charts knows no format 'bmp'"),
    "a column that is none": (["points.csv", "--loss", "val_los"], "Did you mean 'val_loss'?"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line_and_exit_code_2(points: Path, lmexp: Lmexp, name: str):
    words, message = WRONG[name]
    folder = points.parent
    (folder / "text.csv").write_text("params,tokens,loss\n1e6,1e8,3\n1e6,lots,3\n")
    (folder / "empty.csv").write_text("")
    (folder / "compute.csv").write_text("flops,loss\n1e18,3\n")
    line = "\n".join(f"{n:g},{20 * n:g},{3 - i / 10}" for i, n in enumerate(np.geomspace(1e6, 1e9, 10)))
    (folder / "line.csv").write_text(f"params,tokens,loss\n{line}\n")
    (folder / "one.csv").write_text("params,tokens,loss\n1e6,1e8,3\n")
    ended = lmexp("fit", *words, *FEW)
    assert ended.returncode == 2 and message in ended.stderr, ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1 and not ended.stdout
    assert not (folder / "fit.html").exists()


@pytest.mark.slow
def test_a_column_with_markup_stays_text(points: Path, lmexp: Lmexp):
    hostile = "<script>alert(1)</script>"
    points.write_text(points.read_text().replace("val_loss", hostile))
    assert lmexp("fit", "points.csv", "--loss", hostile, *FEW).returncode == 0
    assert hostile not in (points.parent / "fit.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "charts"),
    [
        (("--law", "downstream", "--score", "accuracy", "--predict", "params=1e10,tokens=2e11"), {"downstream"}),
        (("--law", "loss_to_loss", "--to", "other_loss", "--predict", "loss=2.5"), {"loss_to_loss"}),
        (
            ("--law", "learning_rate", "--predict", "params=1e10,tokens=2e11", "--flops", "1e22"),
            {"learning_rate", "learning_rate_grids"},
        ),
    ],
)
def test_a_law_of_another_number_writes_the_same_files_and_formats(
    options: tuple[str, ...], charts: set[str], tmp_path: Path, lmexp: Lmexp
):
    (rate_grid(noise=0.005) if "learning_rate" in options else scored_runs(noise=1)).to_csv(tmp_path / "runs.csv")
    ended = lmexp("fit", "runs.csv", *options, "--charts", "svg", COLUMNS="80")
    assert ended.returncode == 0, ended.stderr
    assert max(map(len, ended.stdout.splitlines())) <= 80
    assert {file.name for file in (tmp_path / "charts").iterdir()} == {f"fit-{name}.svg" for name in charts}
    assert "runs.csv" in (tmp_path / "fit.html").read_text()
    document = json.loads((tmp_path / "fit.json").read_text())
    assert document.items() <= json.loads(lmexp("fit", "runs.csv", *options, "--json").stdout).items()
    for one in document["predicted"]:
        assert one["low"] is None or one["low"] < one["value"] < one["high"]
    latex = lmexp("fit", "runs.csv", *options, "--format", "latex").stdout
    numbers = sum(len(law["theta"]) for law in document["laws"].values())
    assert latex.count(" to ") + latex.count("not identified") == numbers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--score", "acc"), "--score acc: this option goes with --law downstream"),
        (("--law", "downstream"), "--law downstream needs --score COLUMN"),
        (("--law", "loss_to_loss"), "--law loss_to_loss needs --to COLUMN"),
        (("--law", "loss_to_loss", "--to", "x", "--serve", "1e9"), "is about one loss by another: other laws"),
    ],
)
def test_columns_that_a_law_does_not_have_or_lacks_are_said(
    options: tuple[str, ...], said: str, points: Path, lmexp: Lmexp
):
    ended = lmexp("fit", "points.csv", *options)
    assert ended.returncode == 2 and said in ended.stderr
