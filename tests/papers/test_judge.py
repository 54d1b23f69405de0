"""Claims on the runs of a study: verdicts, what would decide them, a study that fits none, the overview."""

import json
from pathlib import Path

import pytest

from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.papers.judge import evidence_of, judge
from lmexp.papers.overview import in_words, note_verdicts, overview
from lmexp.papers.paper import Claim, Paper
from lmexp.papers.reproduction import judge_paper
from lmexp.runs.directory import RunDir
from lmexp.study.paper import write_paper_files
from tests.command import start_process
from tests.report.synthetic import write_study


def claim(value: str, low: float | None, high: float | None) -> Claim:
    return Claim(name="one", claim="A claim", where="figure 1", value=value, band=[low, high])


def test_open_claims_say_what_would_decide_them(tmp_path: Path):
    evidence = evidence_of(load_study([write_study(tmp_path)]))
    mean = float(evidence.table["loss"].mean())
    wide, narrow, there_not = judge(
        [
            claim("mean(loss)", mean - 10, mean + 10),
            claim("mean(loss)", mean - 1e-3, mean + 10),
            claim("mean(loss, where=n_layers == 77)", 0, 1),
        ],
        evidence,
    )
    assert (wide.verdict, narrow.verdict, there_not.verdict) == ("borne out", "undecided", "not run")
    assert "times as many seeds would decide it" in (narrow.why or "") or "edge of the band" in (narrow.why or "")


def test_a_half_finished_sweep_is_judged_on_what_is_there(tmp_path: Path):
    folder = write_study(tmp_path, "papers-half")
    paper = Paper(title="A", authors="B", year=2024, claims=[claim("mean(loss)", 0, 9)])
    for run in [RunDir(path) for path in sorted(folder.iterdir()) if path.is_dir()]:
        result = judge_paper("half", paper, "cpu", tmp_path)
        assert sum(result.without_result.values()) == 10 - result.runs
        (run.path / "record.json").unlink(missing_ok=True)
        run.update_state(state="running")
        last = result
    assert last.basis == "1 run at scale cpu; 9 others have no result: 9 running" and last.judged[0].why is not None
    with pytest.raises(UserError, match=r"nothing to judge: no run of papers-half has a result. There are 10 running"):
        judge_paper("half", paper, "cpu", tmp_path)


@pytest.mark.parametrize(
    "value, verdict, why",
    [
        ("mean(los)", "not judged", r"one: .* there is no column 'los'"),
        ("mean(loss, where=n_layers == 77)", "not run", "the runs are missing"),
    ],
)
def test_a_study_that_fits_no_claim_has_a_page_all_the_same(tmp_path: Path, value: str, verdict: str, why: str):
    write_study(tmp_path, "papers-none")
    paper = Paper(title="A", authors="B", year=2024, claims=[claim(value, 0, 1)])
    report = write_paper_files(judge_paper("none", paper, "cpu", tmp_path))
    assert verdict in report.page.read_text() and verdict in report.markdown.read_text()
    with pytest.raises(UserError, match=rf"no claim can be judged\. {why}.*; .*paper\.html says what is there"):
        report.check_judged()


def test_a_claim_with_a_verdict_is_enough(tmp_path: Path):
    write_study(tmp_path, "papers-some")
    claims = [claim("mean(los)", 0, 1), claim("mean(loss)", 0, 9).model_copy(update={"name": "two"})]
    result = judge_paper("some", Paper(title="A", authors="B", year=2024, claims=claims), "cpu", tmp_path)
    assert result.why_nothing_is_judged is None


def _note_many(outputs: Path, paper: str) -> None:
    for number in range(10):
        note_verdicts(outputs, f"{paper}{number}", "cpu", {"verdicts": {"borne out": number}})


@pytest.mark.slow
def test_commands_that_end_together_all_keep_their_verdicts(tmp_path: Path):
    together = [start_process(_note_many, tmp_path, paper) for paper in ("one", "two", "three")]
    for process in together:
        process.join()
    assert len(json.loads((tmp_path / "papers.json").read_text())) == 30


@pytest.mark.parametrize(
    "damaged", ["{", "[]", '{"half": 3}', '{"half": {"cpu": 4}}', '{"half": {"cpu": {"verdicts": {"a": "b"}}}}']
)
def test_a_damaged_overview_is_written_anew(tmp_path: Path, damaged: str):
    (tmp_path / "papers.json").write_text(damaged)
    (tmp_path / "sweeps" / "papers").mkdir(parents=True)
    (tmp_path / "sweeps" / "papers" / "half.yaml").write_text("paper: []\n")
    assert "cannot be read" in in_words(overview([tmp_path], tmp_path)["half"])
    noted = {"date": "2026-01-01", "runs": 1, "verdicts": {"borne out": 1}}
    note_verdicts(tmp_path, "half", "cpu", noted)
    assert json.loads((tmp_path / "papers.json").read_text()) == {"half": {"cpu": noted}}
