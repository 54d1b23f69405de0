"""Claims on the runs of a study: verdicts, what would decide them, and a study that fits none."""

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
    assert last.basis == "1 runs at scale cpu; 9 others have no result: 9 running" and last.judged[0].why is not None
    with pytest.raises(UserError, match=r"nothing to judge: no run of papers-half has a result. There are 10 running"):
        judge_paper("half", paper, "cpu", tmp_path)


def test_a_study_that_fits_no_claim_is_wrong_input(tmp_path: Path):
    evidence = evidence_of(load_study([write_study(tmp_path)]))
    with pytest.raises(UserError, match=r"no claim can be judged\. one: .* there is no column 'los'"):
        judge([claim("mean(los)", 0, 1)], evidence)


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
