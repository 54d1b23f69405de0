"""Published points: a file with other names and units, and what is wrong with one."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from lmexp.config.paths import search_roots
from lmexp.errors import UserError
from lmexp.papers.evidence import Estimated, Evidence
from lmexp.papers.judge import judge
from lmexp.papers.paper import Claim, Paper, PointsSource, find_paper
from lmexp.papers.points import evidence_of_points
from lmexp.papers.reproduction import judge_points
from lmexp.papers.verdicts import Band, verdict_on_coverage

SHARED = Path(__file__).parents[3] / "shared" / "data"
SOURCE = PointsSource(
    where_to_get="somewhere",
    columns={"n_params": "Size", "loss": "Validation"},
    scale={"n_params": 1e6},
    rows="kind == 'final'",
    axes=["kind"],
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "points.csv"
    file.write_text("Size,Validation,kind\n1,3.5,final\n2,3.0,final\n2,9.0,early\n")
    return file


def test_columns_get_lmexps_names_and_plain_units(file: Path):
    evidence = evidence_of_points(file, SOURCE)
    assert evidence.table["n_params"].tolist() == [1e6, 2e6] and evidence.table["loss"].tolist() == [3.5, 3.0]
    assert evidence.axes == ("kind",)


@pytest.mark.parametrize(
    ("text", "changes", "why"),
    [
        ("Siz,Validation,kind\n1,2,final\n", {}, "has no column 'Size', which holds n_params. Did you mean 'Siz'"),
        ("Size,Validation,kind\nbig,2,final\n", {}, "the column 'Size' holds text in place of numbers"),
        ("Size,Validation,kind\n1,inf,final\n", {}, "'Validation' holds inf; numbers are finite and above 0"),
        ("Size,Validation,kind\n0,2,final\n", {}, "'Size' holds 0; numbers are finite and above 0"),
        (f"Size,Validation,kind\n1{'0' * 400},2,final\n", {}, "'Size' holds inf; numbers are finite"),
        ("Size,Validation,kind\n1,2,early\n", {}, "no row of .* meets the paper's condition kind == 'final'"),
        ("Size,Validation\n1,2\n", {"rows": None}, "has no column 'kind', by which the paper tells its points apart"),
        ("Size,Validation,kind\n1,2,final\n", {"scale": {"tokens": 2.0}}, "has no column 'tokens', whose unit"),
        ("Size,Validation,kind\n1,2,final\n", {"scale": {}}, "params is 1; is it in millions or billions"),
        ("Size,Validation,kind\n1,90,final\n", {}, "are they perplexities"),
        ("Size,Validation,kind\n", {}, "has no rows"),
        ("", {}, "is empty"),
        ("Size,Validation,kind\n1,2,final\n", {"is_folder": True}, "is no folder"),
    ],
)
def test_a_file_that_the_paper_does_not_mean_is_one_message(
    file: Path, text: str, changes: dict[str, object], why: str
):
    file.write_text(text)
    with pytest.raises(UserError, match=f"{why}.*[.?] The paper's points are somewhere$"):
        evidence_of_points(file, SOURCE.model_copy(update=changes))


def test_a_column_of_lmexps_name_gives_way_to_the_one_that_the_paper_means(file: Path):
    file.write_text("Size,Validation,kind,n_params,loss\n1,3.5,final,7,8\n")
    table = evidence_of_points(file, SOURCE).table
    assert table["n_params"].tolist() == [1e6] and table["loss"].tolist() == [3.5]


def test_points_without_a_loss_are_counted(file: Path, tmp_path: Path):
    file.write_text("params,train_flops,tokens,loss\n" + "1e9,6e19,1e10,3\n1e9,6e19,1e10,\n" * 2)
    claim = {"name": "one", "claim": "A claim", "where": "here", "value": "mean(loss)", "band": [0, 9]}
    paper = Paper.model_validate(
        {"title": "A", "authors": "B", "year": 2024, "claims": [claim | {"scales": ["points"]}], "has_sweep": False}
        | {"points": {"where_to_get": "somewhere", "columns": {"n_params": "params"}}}
    )
    assert judge_points("a", paper, file, tmp_path).basis == "4 published points, 2 of them without a size or a loss"


def test_a_paper_without_published_data_takes_none(file: Path, tmp_path: Path):
    short, _, paper = find_paper("markov", search_roots())
    with pytest.raises(UserError, match="the paper markov has no claims about published points"):
        judge_points(short, paper, file, tmp_path)


def test_a_folder_is_one_table_with_the_names_of_its_files(file: Path):
    (file.parent / "more.csv").write_text("Size,Validation,kind\n4,2.5,final\n")
    (file.parent / "README.md").write_text("no table")
    evidence = evidence_of_points(file.parent, SOURCE.model_copy(update={"is_folder": True}))
    assert evidence.table["file"].tolist() == ["more", "points", "points"]
    with pytest.raises(UserError, match="is a folder; this paper's points are one file"):
        evidence_of_points(file.parent, SOURCE)


@pytest.mark.parametrize(
    ("by", "verdict"), [("interval", "undecided"), ("value", "borne out"), ("coverage", "borne out")]
)
def test_what_must_lie_in_what(by: str, verdict: str):
    losses = pd.DataFrame({"loss": [1.0, 2.0, 3.0, 4.0]})
    claim = {"name": "one", "claim": "A claim", "where": "here", "value": "mean(loss)", "band": [2.4, 2.6], "by": by}
    (judged,) = judge([Claim.model_validate(claim)], Evidence(losses, (), "a table"))
    assert judged.verdict == verdict


def test_coverage_needs_an_interval_that_holds_the_whole_band():
    ours = Estimated(2.0, 1.0, 3.0)
    verdicts = [verdict_on_coverage(ours, Band(low, high)) for low, high in ((1.5, 2.5), (2.5, 3.5), (3.5, 4.0))]
    assert verdicts == ["borne out", "undecided", "contradicted"]
    assert verdict_on_coverage(Estimated(2.0, -math.inf, math.inf), Band(1, 2)) == "undecided"


NOT_BORNE_OUT = {
    "chinchilla2022": {"own_floor", "own_beta", "own_exponent"},
    "forecast2026": set(),
    "gadre2024": set(),
    "muennighoff2023": {"floor_of_all", "size_of_all", "data_of_all", "alpha_of_all"},
    "gemstones2025": {"all_runs", "cool_downs", "half_the_rate", "without_embeddings", "cool_downs_raise_it"},
    "multipower2025": {"r_squared_400m"},
}
"""The claims that are contradicted on the published data; all others are borne out."""
FILES = {
    "chinchilla2022": "chinchilla_points.csv",
    "forecast2026": "published/marin_moe_2026.csv",
    "multipower2025": "published/schedules",
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published data is not here")
@pytest.mark.parametrize("name", [*list(NOT_BORNE_OUT)[:-1], pytest.param("multipower2025", marks=pytest.mark.slow)])
def test_claims_about_published_data(name: str, tmp_path: Path):
    short, _, paper = find_paper(name, search_roots())
    result = judge_points(short, paper, SHARED / FILES.get(name, f"published/{name}.csv"), tmp_path)
    verdicts = {one.claim.name: one.verdict for one in result.judged}
    assert {claim for claim, verdict in verdicts.items() if verdict == "contradicted"} == NOT_BORNE_OUT[name]
    assert set(verdicts.values()) <= {"borne out", "contradicted"}
    assert json.loads((tmp_path / f"papers-{name}-points" / "claims.json").read_text())["scale"] == "points"
