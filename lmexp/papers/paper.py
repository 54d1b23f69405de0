"""Papers as data: a file in sweeps/papers/ is a sweep with a node `paper:`, which says what is claimed and tested.

The rest of the file is an ordinary sweep: `lmexp sweep papers/NAME` runs it at its smallest scale, `cpu`. Each other
scale is a list of overrides of that sweep.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from lmexp.config import paths
from lmexp.config.base import Section, fault_of
from lmexp.config.yaml_files import line_of, read_yaml, shown
from lmexp.errors import UserError, nearest
from lmexp.papers.figure import Figure
from lmexp.papers.verdicts import Band

Scale = Literal["cpu", "gpu", "paper"]
"""`cpu` takes minutes on two cores, `gpu` hours on one GPU, `paper` has the published sizes and budgets."""
SCALES: tuple[Scale, ...] = get_args(Scale)
FOLDER = "papers"
"""The folder in sweeps/."""
PAPER = "paper"
"""The node of a sweep file."""


class Claim(Section):
    """One statement of a paper, as a number that the runs give and the band in which it must lie."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    claim: str
    """What is claimed, as a sentence."""
    where: str
    """Where the paper says it: a section, figure, table or page."""
    published: float | str | None = None
    """The published number; null if only a sign or an order is claimed."""
    checked: bool = True
    """Whether the published number was compared with the paper itself."""
    value: str
    """The expression of our number (expressions.py)."""
    band: Annotated[list[float | None], Field(min_length=2, max_length=2)]
    """The lowest and the highest number that count as the same; null for an open end."""
    scales: Annotated[list[Scale], Field(min_length=1)] | None = None
    """The scales at which it is tested; null means all."""

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


class Paper(Section):
    """What a paper's file says beside its sweep."""

    title: str
    authors: str
    year: Annotated[int, Field(ge=1900, le=2100)]
    arxiv: str | None = None
    """The number at arXiv, as in 2203.15556."""
    scales: dict[Scale, list[str]] = Field(default_factory=dict)
    """The overrides that make the sweep one of another scale; `cpu` is the sweep as it stands."""
    claims: Annotated[list[Claim], Field(min_length=1)]
    figure: list[Figure] = Field(default_factory=list)
    """The paper's figures, redrawn with our points; one needs no list."""
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
        if strange := next((scale for claim in self.claims for scale in claim.scales or () if scale not in self), None):
            raise ValueError(f"claims: there is no scale {strange}")
        return self

    def __contains__(self, scale: object) -> bool:
        return scale == "cpu" or scale in self.scales

    def overrides(self, scale: Scale) -> list[str]:
        """Return the overrides of a scale. Raises UserError if the paper has none of this name."""
        if scale not in self:
            known = [name for name in SCALES if name in self]
            raise UserError(f"--scale {scale}: this paper has {', '.join(known)}")
        return self.scales.get(scale, [])

    def claims_at(self, scale: Scale) -> list[Claim]:
        """Return the claims that are tested at a scale."""
        return [claim for claim in self.claims if claim.scales is None or scale in claim.scales]


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
    try:
        return Paper.model_validate(content[PAPER])
    except ValidationError as error:
        first = error.errors()[0]
        keys = [str(part) for part in (PAPER, *first["loc"])]
        line = line_of(file, [key for key in keys if not key.isdigit()])
        place = f"{shown(file)}:{line}" if line else shown(file)
        raise UserError(f"{place}: {'.'.join(keys)}: {fault_of(first)}") from None
