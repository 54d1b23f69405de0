"""Papers without runs and without points: their claims are arithmetic with published laws."""

import json
from pathlib import Path

import pytest

from lmexp import reproduce
from lmexp.config.compose import Composer
from lmexp.errors import UserError
from lmexp.papers.overview import in_words, overview
from lmexp.papers.paper import ARITHMETIC, find_paper, paper_files, read_paper
from lmexp.papers.reproduction import Reproduction, judge_at_once
from lmexp.report.terminal.paper import claim_texts, notes_of

PAPER = """
paper:
  title: Serving
  authors: A. Author
  year: 2024
  claims:
    - name: smaller
      claim: 30 billion parameters become 13.6 billion
      where: section 2
      published: 13.6e9
      value: cheapest('published:hoffmann', 'params', size=30e9, served=1e13)
      band: [13.55e9, 13.65e9]
    - name: not_larger
      claim: They do not become more
      where: section 2
      value: cheapest_ratio('published:hoffmann', 'params', size=30e9, served=1e13)
      band: [1, null]
  figure:
    title: Size against what is served
    grid: {billions: [7, 30], served: [1e12, 1e13]}
    x: served
    y: cheapest_ratio('published:hoffmann', 'params', size=billions * 1e9, served=served)
    y_title: relative size
    by: billions
    log: [x]
    curves: [{label: section 2, series: 30, points: [[1e13, 0.45]]}]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sweeps" / "papers").mkdir(parents=True)
    (tmp_path / "sweeps" / "papers" / "serving2024.yaml").write_text(PAPER)
    return tmp_path


def judged(root: Path) -> Reproduction:
    short, _, paper = find_paper("serving2024", [root])
    result = judge_at_once(short, paper, "cpu", None, root / "outputs")
    assert result is not None
    return result


def test_it_is_judged_at_once_and_its_numbers_are_exact(root: Path):
    result = judged(root)
    assert {one.claim.name: one.verdict for one in result.judged} == {
        "smaller": "borne out",
        "not_larger": "contradicted",
    }
    smaller = result.judged[0]
    assert smaller.claim.published == 13.6e9, "YAML has a text here"
    assert claim_texts(smaller)[1:4] == ["1.36e+10", "1.36128e+10", None]
    document = json.loads((root / "outputs" / "papers-serving2024-arithmetic" / "claims.json").read_text())
    assert (document["scale"], document["runs"]) == (ARITHMETIC, 0)
    assert [len(series["x"]) for series in document["figures"][0]["series"]] == [2, 2]
    listed = overview([root], root / "outputs")["serving2024"]
    assert in_words(listed) == "Serving (arithmetic); arithmetic: 1 borne out, 1 contradicted"


def test_a_published_number_outside_its_band_is_said(root: Path):
    file = paper_files([root])["serving2024"]
    assert not [note for note in notes_of(judged(root)) if "outside" in note]
    file.write_text(PAPER.replace("published: 13.6e9", "published: 16.3e9"))
    result = judged(root)
    (said,) = [note for note in notes_of(result) if "outside" in note]
    assert said.startswith("The published number of smaller lies outside the band.")
    assert result.judged[0].verdict == "borne out", "our number is the same"


@pytest.mark.slow
def test_its_page_has_no_word_of_runs(root: Path):
    report = reproduce("serving2024", output_dir=root / "outputs", config_dir=root)
    assert report.table.empty and report.verdicts == {"borne out": 1, "contradicted": 1}
    text = report.markdown.read_text()
    for words in (
        "Arithmetic with published laws, without runs.",
        "$ lmexp reproduce serving2024\n",
        "| 1.36e+10 | 1.36128e+10 |  | 1.355e+10 to 1.365e+10 | borne out |",
        "The lowest value of “relative size” is 0.2928, at served = 1e13",
        "Our point there lies 0.84 % above “section 2”.",
    ):
        assert words in text, words
    assert "seed" not in text and "took" not in text


def test_what_it_cannot_do_is_said(root: Path):
    _, file, paper = find_paper("serving2024", [root])
    assert paper.judged_on == ARITHMETIC and len(paper.claims_at(ARITHMETIC)) == 2
    with pytest.raises(UserError, match="arithmetic with published laws: it has no runs, so no scale and no sweep"):
        reproduce("serving2024", scale="gpu", output_dir=root / "outputs", config_dir=root)
    with pytest.raises(UserError, match="it takes no --points"):
        reproduce("serving2024", points=file, output_dir=root / "outputs", config_dir=root)
    with pytest.raises(UserError, match="no runs to train; `lmexp reproduce serving2024` judges it at once"):
        Composer([root], file)


def test_a_misspelt_sweep_is_no_arithmetic(root: Path):
    file = paper_files([root])["serving2024"]
    file.write_text(f"{PAPER}sweeps:\n  grid: {{}}\n")
    with pytest.raises(UserError, match=r"serving2024.yaml:27: sweeps: without a node `sweep:`.* Did you mean 'sweep'"):
        read_paper(file)
    file.write_text(PAPER.replace("cheapest('published:hoffmann', 'params', size=30e9, served=1e13)", "mean(loss)"))
    smaller = judged(root).judged[0]
    assert (smaller.verdict, smaller.why) == (
        "not judged",
        "in the expression, at 'loss)' (character 6): 'loss' is a column, and without a sweep and without points there "
        "are no rows",
    )
