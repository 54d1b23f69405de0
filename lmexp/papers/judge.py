"""Judging a paper's claims on the runs that are there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmexp.analysis.frontier import is_done, numbers
from lmexp.analysis.table import Study, final_rows
from lmexp.errors import UserError
from lmexp.papers.evidence import Estimated, Evidence
from lmexp.papers.expressions import estimate
from lmexp.papers.paper import Claim
from lmexp.papers.verdicts import Verdict, runs_factor, verdict, verdict_on_coverage
from lmexp.units import duration, si

UNKNOWN = Estimated(math.nan, -math.inf, math.inf)
MAX_FACTOR = 1_000
"""If it takes more than this many times the runs, the value is as good as at the edge of the band."""


@dataclass(frozen=True)
class Judged:
    """A claim with our number and the verdict."""

    claim: Claim
    ours: Estimated
    verdict: Verdict
    why: str | None = None
    """Why it could not be judged, or what would decide it."""


def evidence_of(study: Study) -> Evidence:
    """Return the finished rows of a study, milestones included, with its axes."""
    done = study.table[is_done(study.table)].reset_index(drop=True)
    return Evidence(done, tuple(axis for axis in study.axes if axis in done), study.name)


def judge(claims: Sequence[Claim], evidence: Evidence) -> list[Judged]:
    """Return the verdict on each claim."""
    return [_judged(claim, evidence) for claim in claims]


def _judged(claim: Claim, evidence: Evidence) -> Judged:
    try:
        ours = estimate(claim.value, evidence, resampled=claim.by != "value")
    except UserError as problem:
        return Judged(claim, UNKNOWN, "not judged", str(problem))
    result = _verdict(ours, claim)
    return Judged(claim, ours, result, _what_decides(ours, claim, evidence) if result == "undecided" else None)


def _verdict(ours: Estimated, claim: Claim) -> Verdict:
    if claim.by == "coverage":
        return verdict_on_coverage(ours, claim.limits)
    if claim.by == "value" and not math.isnan(ours.value):
        return "borne out" if ours.value in claim.limits else "contradicted"
    return verdict(ours, claim.limits)


def _what_decides(ours: Estimated, claim: Claim, evidence: Evidence) -> str:
    """Return how many more runs would decide a claim, and what they cost, if they are like those that are there."""
    if claim.by == "coverage":
        return "our interval holds a part of the band"
    factor = runs_factor(ours, claim.limits)
    if "run_id" not in evidence.table:
        return "the interval lies partly in the band, and there are no more published points"
    if factor is None:
        return (
            "these runs give no interval: each cell needs two seeds, or without one of the runs there is no such number"
        )
    if factor > MAX_FACTOR:
        return "the value is at the edge of the band, so hardly any number of runs decides it"
    runs = final_rows(evidence.table)
    more = max(math.ceil((factor - 1) * len(runs)), 1)
    flops, seconds = (float(numbers(runs, name).mean()) * more for name in ("train_flops", "wall_seconds"))
    cost = [f"{si(flops)} FLOPs"] * math.isfinite(flops) + [duration(seconds)] * math.isfinite(seconds)
    return (
        f"{factor:.1f} times as many seeds would decide it, if the value stays: {more} more runs like these"
        f"{', ' if cost else ''}{' and '.join(cost)}"
    )
