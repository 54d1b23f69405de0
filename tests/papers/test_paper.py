"""Files of papers: what they may say, and what is wrong with one."""

from pathlib import Path

import pytest

from lmexp.errors import UserError
from lmexp.papers.paper import find_paper, read_paper

GOOD = """
paper:
  title: A title
  authors: A. Author
  year: 2024
  arxiv: "2401.00001"
  scales:
    gpu: ["model.d_model=256,512"]
  claims:
    - name: wider
      claim: Wider is better
      where: figure 1
      value: paired(loss, model.d_model == 16, model.d_model == 8)
      band: [null, 0]
    - name: large
      claim: It stays so
      where: figure 2
      published: 0.5
      checked: false
      value: mean(loss)
      band: [0.4, 0.6]
      scales: [gpu]
sweep:
  grid: {model.d_model: [8, 16]}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sweeps" / "papers").mkdir(parents=True)
    (tmp_path / "sweeps" / "papers" / "wider2024.yaml").write_text(GOOD)
    return tmp_path


def test_a_paper_is_found_by_name_or_file_and_says_what_it_tests_at_each_scale(root: Path):
    for name in ("wider2024", "papers/wider2024", str(root / "sweeps" / "papers" / "wider2024.yaml")):
        short, _, paper = find_paper(name, [root])
        assert short == "wider2024"
        assert [claim.name for claim in paper.claims_at("cpu")] == ["wider"]
        assert [claim.name for claim in paper.claims_at("gpu")] == ["wider", "large"]
        assert paper.overrides("cpu") == [] and paper.overrides("gpu") == ["model.d_model=256,512"]
    with pytest.raises(UserError, match="--scale paper: this paper has cpu, gpu"):
        paper.overrides("paper")
    with pytest.raises(UserError, match=r"there is no paper 'wider2025'\. Did you mean 'wider2024'\?"):
        find_paper("wider2025", [root])


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("paper:", "papers:", "a paper's file has a node `paper:` beside its sweep"),
        ("year: 2024", "year: soon", r"p.yaml:5: paper.year: "),
        ("  title: A title\n", "", "p.yaml:2: paper.title: field required"),
        ("title: A title", "title: ''", "p.yaml:3: paper.title: string should have at least 1 character"),
        ("      where: figure 2\n", "", "p.yaml:15: paper.claims.1.where: field required"),
        ("band: [null, 0]", "band: [null, null]", "paper.claims.0: band: one end at least is a number"),
        ("band: [null, 0]", "band: [1, 0]", "band: 1 is above 0"),
        ("band: [null, 0]", "band: [0]", "paper.claims.0.band: list should have at least 2 items"),
        ("name: large", "name: wider", "claims: two are named wider"),
        ("scales: [gpu]", "scales: [paper]", "claims: there is no scale paper"),
        ("name: wider", "name: größe", "p.yaml:10: paper.claims.0.name: 'größe' is no name: it starts with a letter"),
        ("  claims:", "  figure: {title: F, x: tokens}\n  claims:", "paper.figure.0.y: field required"),
        (
            "  claims:",
            "  figure:\n    title: F\n    x: a\n    y: b\n    log: [z]\n  claims:",
            "p.yaml:13: paper.figure.0.log",
        ),
        (
            "  claims:",
            "  figure: {title: F, x: a, y: b, curves: [{label: c, value: 1, slope: 2}]}\n  claims:",
            "paper.figure.0.curves.0: a curve has one of points, value and slope",
        ),
        ("year: 2024", "year: 2024\n  yeer: 1", "paper.yeer: extra inputs are not permitted"),
        (
            "  claims:",
            "  evaluations: [{precision: int8}, {precision: int5}]\n  claims:",
            r"p.yaml:\d+: paper.evaluations.1: --precision int5: expected one of .*int4\. Did you mean",
        ),
        (
            "  claims:",
            "  evaluations: [{split: train}]\n  claims:",
            "paper.evaluations.0: --split train: expected",
        ),
        (
            "  claims:",
            "  evaluations: [{name: a}, {name: a, split: test}]\n  claims:",
            "evaluations: two are named a",
        ),
        ("  claims:", "  evaluations: [{examples: 2}, {examples: 2}]\n  claims:", "evaluations: two are the same"),
        (
            "  claims:",
            "  evaluations: [{predicts: causal}]\n  claims:",
            "paper.evaluations.0.predicts: extra inputs",
        ),
        (
            "figure 1\n",
            "figure 1\n      scales: [gpu]\n",
            "claims: none is judged on cpu; one has no `scales`, or `scales: .cpu",
        ),
        (GOOD, "paper:\n", "p.yaml:1: paper: a mapping is expected, with title, authors, year and claims"),
        (GOOD, "a: 1\npaper: [title]\n", "p.yaml:2: paper: a mapping is expected"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_with_its_place(tmp_path: Path, before: str, after: str, why: str):
    file = tmp_path / "p.yaml"
    assert before in GOOD
    file.write_text(GOOD.replace(before, after, 1))
    with pytest.raises(UserError, match=why) as problem:
        read_paper(file)
    assert "\n" not in str(problem.value)
