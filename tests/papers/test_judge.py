"""Claims on the runs of a study: verdicts, what would decide them, and a study that fits none."""

from pathlib import Path

import pytest

from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.papers.judge import evidence_of, judge
from lmexp.papers.paper import Claim
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


def test_a_study_that_fits_no_claim_is_wrong_input(tmp_path: Path):
    evidence = evidence_of(load_study([write_study(tmp_path)]))
    with pytest.raises(UserError, match=r"no claim can be judged\. one: .* there is no column 'los'"):
        judge([claim("mean(los)", 0, 1)], evidence)
