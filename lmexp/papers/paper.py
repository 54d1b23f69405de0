"""Papers as data: a file in sweeps/papers/ is a sweep with a node `paper:`, which says what is claimed and tested.

The rest of the file is an ordinary sweep: `lmexp sweep papers/NAME` runs it at its smallest scale, `cpu`. Each other
scale is a list of overrides of that sweep.
"""

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from lmexp.config import paths
from lmexp.config.base import Positive, Section, fault_of
from lmexp.config.data import Split
from lmexp.config.scoring import Scoring
from lmexp.config.yaml_files import line_of, read_yaml, shown
from lmexp.errors import UserError, nearest
from lmexp.papers.figure import Figure
from lmexp.papers.verdicts import Band
from lmexp.units import printable

Scale = Literal["cpu", "gpu", "paper"]
"""`cpu` takes minutes on two cores, `gpu` hours on one GPU, `paper` has the published sizes and budgets."""
JudgedOn = Literal["cpu", "gpu", "paper", "points", "arithmetic"]
"""What a claim is judged on: runs at a scale, published points, or published constants of laws alone."""
POINTS: Literal["points"] = "points"
ARITHMETIC: Literal["arithmetic"] = "arithmetic"
SCALES: tuple[Scale, ...] = get_args(Scale)
FOLDER = "papers"
"""The folder in sweeps/."""
PAPER, SWEEP = "paper", "sweep"
"""Nodes of a paper's file. Without a sweep, all its claims are about published points or, if it has none of these
either, about published laws."""


def _check_name(name: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ValueError(f"'{printable(name)}' is no name: it starts with a letter, and has only a-z, 0-9 and _")
    return name


Words = Annotated[str, Field(min_length=1)]
"""A text that is not empty."""


class Claim(Section):
    """One statement of a paper, as a number that the runs give and the band in which it must lie."""

    name: Annotated[str, AfterValidator(_check_name)]
    claim: Words
    """What is claimed, as a sentence."""
    where: Words
    """Where the paper says it: a section, figure, table or page."""
    published: float | str | None = None
    """The published number; null if only a sign or an order is claimed."""
    checked: bool = True
    """Whether the published number was compared with the paper itself."""
    value: Words
    """The expression of our number (expressions.py)."""
    band: Annotated[list[float | None], Field(min_length=2, max_length=2)]
    """The lowest and the highest number that count as the same; null for an open end."""
    by: Literal["interval", "value", "coverage"] = "interval"
    """What must lie in the band: our whole interval, or our value alone, if it is computed from the paper's own data.
    With `coverage` it is the other way round: the band, such as one measured number, must lie in our interval."""
    scales: Annotated[list[JudgedOn], Field(min_length=1)] | None = None
    """What it is judged on; null means runs at any scale, or arithmetic in a paper that has no runs."""

    @field_validator("published", mode="before")
    @classmethod
    def _read_number(cls, value: Any) -> Any:
        """Return 7e9 as a number, which YAML takes for a text without a point and a sign."""
        try:
            return float(value) if isinstance(value, str) else value
        except ValueError:
            return value

    @model_validator(mode="after")
    def _check(self) -> "Claim":
        low, high = self.band
        if low is None and high is None:
            raise ValueError("band: one end at least is a number")
        if low is not None and high is not None and low > high:
            raise ValueError(f"band: {low:g} is above {high:g}")
        return self

    @property
    def limits(self) -> Band:
        """The band."""
        low, high = self.band
        return Band(-math.inf if low is None else low, math.inf if high is None else high)

    @property
    def is_published_outside(self) -> bool:
        """Whether the published number lies outside the band: the claim is another one, or one of the two is wrong."""
        return isinstance(self.published, float) and self.published not in self.limits

    @property
    def band_in_words(self) -> str:
        """The band, and what must lie in what unless it is our interval in the band."""
        words = {"interval": "", "value": ", our value alone", "coverage": ", within our interval"}
        return f"{self.limits}{words[self.by]}"


class Evaluation(Section):
    """What is measured on every finished run before the claims are judged, as by `lmexp eval`."""

    name: str | None = None
    precision: str | None = None
    examples: int | None = None
    split: Split = "validation"
    """These four are those of Scoring."""
    overrides: list[str] = Field(default_factory=list)
    """Other data or another task, as in [data=text, data.path=a.txt]."""

    @model_validator(mode="after")
    def _check(self) -> "Evaluation":
        try:
            self.scoring.check()
        except UserError as problem:
            raise ValueError(str(problem)) from None
        return self

    @property
    def scoring(self) -> Scoring:
        """What is scored, and how."""
        return Scoring(**self.model_dump(exclude={"overrides"}))

    @property
    def in_words(self) -> str:
        """What differs from the evaluation at the end of training, as in `precision int4`."""
        settings = self.model_dump(exclude_defaults=True, exclude={"overrides"})
        return ", ".join([*(f"{key} {value}" for key, value in settings.items()), *self.overrides])


class PointsSource(Section):
    """Published points: where they are, and which of their columns hold what."""

    where_to_get: Words
    """Where the file is, in words: the repository and the file, its licence."""
    is_folder: bool = False
    """Whether the data is a folder of tables; the column `file` then has the name of each, without its ending."""
    columns: dict[str, str] = Field(default_factory=dict)
    """lmexp's name of a column (n_params, tokens, train_flops, loss, ...) and its name in the file."""
    scale: dict[str, Positive] = Field(default_factory=dict)
    """Factors that turn a column, by lmexp's name, into plain numbers and nats."""
    rows: str | None = None
    """An expression that keeps the rows for which it is true; null keeps all."""
    axes: list[str] = Field(default_factory=list)
    """Columns that tell arms and cells apart."""
    figure: list[Figure] = Field(default_factory=list)
    """The paper's figures, redrawn with the published points; one needs no list."""
    notes: list[str] = Field(default_factory=list)
    """Sentences below the table of claims about these points, such as what failed and the likely reason."""

    @field_validator("figure", mode="before")
    @classmethod
    def _list_one_figure(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value


class Paper(Section):
    """What a paper's file says beside its sweep."""

    title: Words
    authors: Words
    year: Annotated[int, Field(ge=1900, le=2100)]
    arxiv: str | None = None
    """The number at arXiv, as in 2203.15556."""
    points: PointsSource | None = None
    """The published data that the paper's own fits can be tested on; null without any."""
    scales: dict[Scale, list[str]] = Field(default_factory=dict)
    """The overrides that make the sweep one of another scale; `cpu` is the sweep as it stands."""
    evaluations: list[Evaluation] = Field(default_factory=list)
    """What is measured on every finished run, beside its quality at the end of training."""
    claims: Annotated[list[Claim], Field(min_length=1)]
    figure: list[Figure] = Field(default_factory=list)
    """The paper's figures, redrawn with our points; one needs no list."""
    has_sweep: bool = True
    """Whether there are runs to train."""
    notes: list[str] = Field(default_factory=list)
    """Sentences below the table of claims, such as what failed and the likely reason."""

    @field_validator("figure", mode="before")
    @classmethod
    def _list_one_figure(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check(self) -> "Paper":
        names = [claim.name for claim in self.claims]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"claims: two are named {twice}")
        if any(self.evaluations.count(one) > 1 for one in self.evaluations):
            raise ValueError("evaluations: two are the same")
        named = [(one.name, one.examples) for one in self.evaluations if one.name]
        if alike := next((name for name, examples in named if named.count((name, examples)) > 1), None):
            raise ValueError(f"evaluations: two are named {alike}")
        if self.evaluations and not self.has_sweep:
            raise ValueError("evaluations: they are of runs, and this paper has no sweep")
        if unused := next((on for on in (*SCALES, POINTS) if on in self and not self.claims_at(on)), None):
            raise ValueError(f"claims: none is judged on {unused}; one has no `scales`, or `scales: [{unused}]`")
        if strange := next((scale for claim in self.claims for scale in claim.scales or () if scale not in self), None):
            raise ValueError(f"claims: there is no scale {strange}")
        return self

    def __contains__(self, scale: object) -> bool:
        if scale == POINTS:
            return self.points is not None
        if scale == ARITHMETIC:
            return not self.has_sweep and self.points is None
        return self.has_sweep and (scale == "cpu" or scale in self.scales)

    @property
    def judged_on(self) -> JudgedOn:
        """What its claims are judged on by default: runs at the scale `cpu`, or published points, or arithmetic."""
        if self.has_sweep:
            return "cpu"
        return ARITHMETIC if self.points is None else POINTS

    def overrides(self, scale: Scale) -> list[str]:
        """Return the overrides of a scale. Raises UserError if the paper has none of this name."""
        if self.judged_on == ARITHMETIC:
            raise UserError("this paper is arithmetic with published laws: it has no runs, so no scale and no sweep")
        if not self.has_sweep and self.points is not None:
            raise UserError(
                "this paper has no runs to train: --points FILE judges it on its published data. "
                f"It is {self.points.where_to_get}"
            )
        if scale not in self:
            known = [name for name in SCALES if name in self]
            raise UserError(f"--scale {scale}: this paper has {', '.join(known)}")
        return self.scales.get(scale, [])

    def claims_at(self, scale: JudgedOn) -> list[Claim]:
        """Return the claims that are judged on runs at a scale, on published points, or by arithmetic alone."""
        return [claim for claim in self.claims if (scale != POINTS if claim.scales is None else scale in claim.scales)]

    def figures_at(self, scale: JudgedOn) -> list[Figure]:
        """Return the figures that are drawn from runs, from published points, or by arithmetic alone."""
        return self.figure if scale != POINTS else self.points.figure if self.points else []

    def notes_at(self, scale: JudgedOn) -> list[str]:
        """Return the sentences about the runs or the arithmetic, or about the published points."""
        return self.notes if scale != POINTS else self.points.notes if self.points else []


def scale_named(name: str) -> Scale:
    """Return the scale of this name. Raises UserError if there is none."""
    for known in SCALES:
        if known == name:
            return known
    raise UserError(f"--scale {name}: choose {', '.join(SCALES)}")


def find_paper(name: str, roots: list[Path]) -> tuple[str, Path, Paper]:
    """Return the short name, the file and the content of a paper, given by name or by the path of its file.

    Raises UserError, with the nearest name, if there is none, and for a file that is wrong.
    """
    if name.endswith((".yaml", ".yml")):
        short, file = paths.find_sweep(name, roots)
        return short, file, read_paper(file)
    known = paper_files(roots)
    short = name.removeprefix(f"{FOLDER}/")
    if short not in known:
        raise UserError(f"there is no paper '{name}'.{nearest(short, known)} `lmexp list papers` shows them")
    return short, known[short], read_paper(known[short])


def paper_files(roots: list[Path]) -> dict[str, Path]:
    """Return the files of all papers by name; the user's hides a shipped one of its name."""
    prefix = f"{FOLDER}/"
    return {
        name.removeprefix(prefix): file for name, file in paths.sweep_files(roots).items() if name.startswith(prefix)
    }


def read_paper(file: Path) -> Paper:
    """Return what a file says of its paper. Raises UserError, with the line, for what is wrong."""
    content: Any = read_yaml(file)
    if not isinstance(content, dict) or PAPER not in content:
        raise UserError(f"{shown(file)}: a paper's file has a node `{PAPER}:` beside its sweep")
    if not isinstance(content[PAPER], dict):
        place = f"{shown(file)}:{line_of(file, [PAPER])}"
        raise UserError(f"{place}: {PAPER}: a mapping is expected, with title, authors, year and claims")
    others = [str(key) for key in content if key != PAPER]
    if SWEEP not in content and others:
        raise UserError(
            f"{shown(file)}:{line_of(file, others[:1])}: {others[0]}: without a node `{SWEEP}:`, a paper's file has "
            f"`{PAPER}:` alone.{nearest(others[0], [SWEEP])}"
        )
    try:
        return Paper.model_validate({**content[PAPER], "has_sweep": SWEEP in content})
    except ValidationError as error:
        first = error.errors()[0]
        keys = [str(part) for part in (PAPER, *first["loc"])]
        lines = (line_of(file, keys[:end]) for end in range(len(keys), 0, -1))  # of a missing key, that of its node
        place = f"{shown(file)}:{next(filter(None, lines), 1)}"
        raise UserError(f"{place}: {'.'.join(keys)}: {fault_of(first)}") from None
