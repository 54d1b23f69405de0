"""A paper's reproduction: its sweep at one scale, the verdicts, and the files that keep them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

import lmexp
from lmexp.analysis.frontier import is_done
from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.files import write_json
from lmexp.papers.drawing import Drawing, draw
from lmexp.papers.evidence import Estimated, Evidence
from lmexp.papers.figure import Figure
from lmexp.papers.judge import Judged, evidence_of, judge
from lmexp.papers.overview import counts_in_words, note_verdicts
from lmexp.papers.paper import ARITHMETIC, FOLDER, POINTS, JudgedOn, Paper, PointsSource, Scale
from lmexp.papers.points import SIZES, evidence_of_points
from lmexp.units import counted

CLAIMS = "claims.json"
"""In the sweep's folder: each claim with its verdict."""


@dataclass(frozen=True)
class Undrawn:
    """A figure that these runs do not give."""

    figure: Figure
    why: str


@dataclass(frozen=True)
class Reproduction:
    """The verdicts on a paper's claims at one scale."""

    name: str
    paper: Paper
    scale: JudgedOn
    folder: Path
    judged: tuple[Judged, ...]
    drawings: tuple[Drawing | Undrawn, ...]
    evidence: Evidence
    """What they rest on."""
    question: str | None
    """What the sweep asks."""
    runs: int
    """Finished runs, or published points, that they rest on; 0 for arithmetic."""
    date: str
    without_result: dict[str, int]
    """How many other runs of the sweep have each state, such as pending or failed."""

    @property
    def file(self) -> Path:
        """claims.json"""
        return self.folder / CLAIMS

    @property
    def source(self) -> PointsSource | None:
        """Where the published points come from that they rest on; None if they rest on runs."""
        return self.paper.points if self.scale == POINTS else None

    @property
    def basis(self) -> str:
        """What the verdicts rest on, in words."""
        if self.scale == ARITHMETIC:
            return "arithmetic with published laws, without runs"
        if self.scale != POINTS:
            others = f"; {self.others_in_words}" if self.without_result else ""
            return f"{counted(self.runs, 'run')} at scale {self.scale}{others}"
        sizes = self.evidence.table.filter(list(SIZES.values()))
        lacking = int(sizes.isna().any(axis=1).sum())
        return f"{self.runs:,} published points{f', {lacking:,} of them without a size or a loss' if lacking else ''}"

    @property
    def others_in_words(self) -> str:
        """How many other runs have no result, as in `3 others have no result: 2 pending, 1 failed`."""
        count = sum(self.without_result.values())
        return f"{count} other{'s have' if count > 1 else ' has'} no result: {counts_in_words(self.without_result)}"

    @property
    def verdicts(self) -> dict[str, int]:
        """How many claims have each verdict."""
        return dict(Counter(one.verdict for one in self.judged))

    @property
    def why_nothing_is_judged(self) -> str | None:
        """Why no claim at all has a verdict, with the first reason; None if one has."""
        if any(one.verdict not in ("not judged", "not run") for one in self.judged):
            return None
        named = next((f"{one.claim.name}: {one.why}" for one in self.judged if one.why), "the runs are missing")
        return f"no claim can be judged. {named}"

    def document(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            "paper": self.name,
            "title": self.paper.title,
            "scale": self.scale,
            "sweep": self.folder.name,
            "runs": self.runs,
            "without_result": self.without_result,
            "date": self.date,
            "lmexp": lmexp.__version__,
            "claims": [_document(one) for one in self.judged],
            "figures": [_figure(one) for one in self.drawings],
        }


def sweep_folder(name: str, scale: JudgedOn) -> str:
    """Return the name of a paper's folder of results; at the scale `cpu` it is that of `lmexp sweep papers/NAME`."""
    return f"{FOLDER}-{name}" if scale == "cpu" else f"{FOLDER}-{name}-{scale}"


def judge_at_once(name: str, paper: Paper, scale: Scale, points: Path | None, outputs: Path) -> Reproduction | None:
    """Judge claims that need no runs: those about published points, or arithmetic. Return None if runs are needed.

    Raises UserError as `judge_points` does, for points with a scale, and for a scale of a paper that has no runs.
    """
    if points is not None:
        if scale != "cpu":
            raise UserError(f"--points judges published data, which has no scale: leave out --scale {scale}")
        return judge_points(name, paper, points, outputs)
    if paper.judged_on != ARITHMETIC:
        return None
    if scale != "cpu":
        paper.overrides(scale)  # says that it has none
    return judge_arithmetic(name, paper, outputs)


def judge_paper(name: str, paper: Paper, scale: Scale, outputs: Path) -> Reproduction:
    """Judge a paper's claims on the runs that are there, and write the verdicts.

    Raises UserError if there are no finished runs.
    """
    study = load_study([outputs / sweep_folder(name, scale)])
    evidence = evidence_of(study)
    others = study.table[~is_done(study.table)].drop_duplicates("run_id")["state"]
    without_result = {str(state): int(count) for state, count in others.value_counts().items()}
    if evidence.table.empty:
        raise UserError(
            f"there is nothing to judge: no run of {study.name} has a result. "
            f"There are {counts_in_words(without_result)}; `lmexp status {study.name}` says more"
        )
    return _reproduction(name, paper, scale, outputs, evidence, study.question, without_result)


def judge_points(name: str, paper: Paper, file: Path, outputs: Path) -> Reproduction:
    """Judge a paper's claims about its published points on the file or folder that holds them, and write the verdicts.

    Raises UserError if the paper has no such claims, or if the file is not the one that it means.
    """
    if paper.points is None:
        raise UserError(f"the paper {name} has no claims about published points, so it takes no --points")
    return _reproduction(name, paper, POINTS, outputs, evidence_of_points(file, paper.points))


def judge_arithmetic(name: str, paper: Paper, outputs: Path) -> Reproduction:
    """Judge the claims of a paper that has neither runs nor points, and write the verdicts."""
    nothing = Evidence(pd.DataFrame(), (), "a paper without a sweep and without points")
    return _reproduction(name, paper, ARITHMETIC, outputs, nothing, None)


def _reproduction(
    name: str,
    paper: Paper,
    scale: JudgedOn,
    outputs: Path,
    evidence: Evidence,
    question: str | None = None,
    without_result: dict[str, int] | None = None,
) -> Reproduction:
    """Judge the claims on evidence, and write the verdicts."""
    folder = outputs / sweep_folder(name, scale)
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    judged = tuple(judge(paper.claims_at(scale), evidence))
    drawings = tuple(_drawn(figure, evidence) for figure in paper.figures_at(scale))
    has_runs = scale not in (POINTS, ARITHMETIC)
    n_runs = int(evidence.table["run_id"].nunique()) if has_runs else len(evidence.table)
    result = Reproduction(
        name, paper, scale, folder, judged, drawings, evidence, question, n_runs, date, without_result or {}
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(result.file, result.document())
    note_verdicts(outputs, name, scale, {"date": date, "runs": n_runs, "verdicts": result.verdicts})
    return result


def _drawn(figure: Figure, evidence: Evidence) -> Drawing | Undrawn:
    try:
        return draw(figure, evidence)
    except UserError as problem:
        return Undrawn(figure, str(problem))


def _figure(one: Drawing | Undrawn) -> dict[str, Any]:
    """Return our points of a figure, by series, or why it was not drawn."""
    named = {"title": one.figure.title, "x": one.figure.x, "y": one.figure.y, "by": one.figure.by}
    if isinstance(one, Undrawn):
        return {**named, "series": [], "why": one.why}
    columns = ("x", "y", "low", "high", "seeds")
    series = [{"name": part.name, **{key: getattr(part, key).tolist() for key in columns}} for part in one.series]
    for part in series if one.x.names else []:
        part["x"] = list(map(one.x.text, part["x"]))
    return {**named, "series": series, "why": None}


def _document(one: Judged) -> dict[str, Any]:
    low, high = one.claim.band
    return {
        "name": one.claim.name,
        "claim": one.claim.claim,
        "where": one.claim.where,
        "published": one.claim.published,
        "checked": one.claim.checked,
        "expression": one.claim.value,
        **_numbers(one.ours),
        "band": [low, high],
        "by": one.claim.by,
        "verdict": one.verdict,
        "why": one.why,
    }


def _numbers(ours: Estimated) -> dict[str, float | None]:
    """Return our number and its interval; null for what is not finite, which JSON has no word for."""
    named: Sequence[tuple[str, float]] = (("value", ours.value), ("low", ours.low), ("high", ours.high))
    return {name: number if abs(number) < float("inf") else None for name, number in named}
