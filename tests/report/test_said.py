"""A report on a paper's sweep answers first with the verdicts on the claims, those of `lmexp reproduce --no-run`."""

import json
from pathlib import Path

import pytest

from lmexp.analysis.answer import MAX_SENTENCES
from lmexp.analysis.findings import findings
from lmexp.analysis.table import Study, load_study
from lmexp.config.paths import search_roots
from lmexp.papers.paper import find_paper
from lmexp.papers.reproduction import judge_paper
from lmexp.report.export.document import study_document
from lmexp.report.options import ViewOptions
from lmexp.report.said import said_of
from lmexp.report.terminal.paper import interval_text, ours_text
from lmexp.report.view import StudyView
from tests.report.synthetic import write_study

PAPER = """
paper:
  title: A second layer
  authors: A. Author
  year: 2024
  claims:
    - {name: deeper, claim: Two more layers lower the loss, where: figure 1, published: -0.2,
       value: "paired(loss, model.n_layers == 4, model.n_layers == 2)", band: [null, 0]}
    - {name: half, claim: They halve it, where: table 1,
       value: "paired(loss, model.n_layers == 4, model.n_layers == 2)", band: [-2, -1]}
    - {name: eight, claim: Eight layers are better still, where: table 2,
       value: "paired(loss, model.n_layers == 8, model.n_layers == 4)", band: [null, 0]}
sweep:
  question: Is a second layer worth its time?
  grid: {model.n_layers: [2, 4]}
"""


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs of a paper, whose file is in the folder of the user."""
    file = tmp_path / "sweeps" / "papers" / "second.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(PAPER)
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "outputs", "papers-second")
    return tmp_path / "outputs"


@pytest.fixture
def study(outputs: Path) -> Study:
    return load_study([outputs / "papers-second"])


def test_the_answer_has_the_verdicts_and_numbers_of_reproduce_and_what_failed_comes_first(outputs: Path, study: Study):
    said = said_of(study)
    result = judge_paper("second", find_paper("second", search_roots())[2], "cpu", outputs)
    assert said.answer[0] == "Of 3 claims of A. Author, 2024, at scale cpu: 1 contradicted, 1 borne out, 1 not run."
    assert [sentence.split(":")[0] for sentence in said.answer[1:]] == [
        "half is contradicted",
        "deeper is borne out",
        "eight lacks runs",
    ]
    deeper = result.judged[0]
    assert f"ours {ours_text(deeper)} (95 % interval {interval_text(deeper)}), published -0.2" in said.answer[2]
    assert len(said.answer) <= MAX_SENTENCES and said.rest[: len(findings(study).answer)] == findings(study).answer


def test_json_and_all_that_is_printed_have_the_same_answer(study: Study):
    document = study_document(StudyView.of(study, ViewOptions()))
    assert tuple(json.loads(json.dumps(document))["answer"]) == said_of(study).answer


def test_nothing_is_written_and_rows_that_somebody_chose_have_no_verdict(outputs: Path, study: Study):
    part = study.where("precision == 'bf16'")
    assert said_of(part).sentences == findings(part).sentences and said_of(part).answer == findings(part).answer
    said_of(study)
    assert not (outputs / "papers-second" / "claims.json").exists() and not (outputs / "papers.json").exists()


def test_another_study_and_one_without_a_finished_run_have_their_own_answer(outputs: Path):
    other = load_study([write_study(outputs, "papers-unknown")])
    assert said_of(other).sentences == findings(other).sentences and said_of(other).answer == findings(other).answer
    for record in (outputs / "papers-second").glob("*/record.json"):
        record.unlink()
    empty = load_study([outputs / "papers-second"])
    assert said_of(empty).sentences == findings(empty).sentences and said_of(empty).answer == findings(empty).answer


def test_a_file_that_is_wrong_is_said_and_the_findings_follow(outputs: Path, study: Study):
    file = outputs.parent / "sweeps" / "papers" / "second.yaml"
    file.write_text(PAPER.replace("year: 2024", "year: soon"))
    said = said_of(study)
    assert said.answer[0].startswith("The claims of the paper are not judged: ") and "year" in said.answer[0]
    assert set(findings(study).answer) <= set(said.rest)


def test_claims_beyond_five_sentences_are_folded_away(outputs: Path, study: Study):
    head, claims = PAPER.split("  claims:\n")
    one = '    - {name: c%d, claim: C, where: p, value: "mean(loss)", band: [0, 9]}\n'
    file = outputs.parent / "sweeps" / "papers" / "second.yaml"
    file.write_text(head + "  claims:\n" + "".join(one % i for i in range(7)) + claims[claims.index("sweep:") :])
    said = said_of(study)
    assert len(said.answer) == MAX_SENTENCES
    assert [sentence.split(" ")[0] for sentence in said.rest[:3]] == ["c4", "c5", "c6"]
