"""What a user chooses to see of a study: columns, order, groups, and questions about its runs."""

from dataclasses import dataclass, field

DEFAULT_TOP = 50


@dataclass(frozen=True)
class ViewOptions:
    """The choices, the same for the terminal, the formats and Python. Each option of `lmexp report` is one field."""

    quality: tuple[str, ...] = ()
    """Columns that say how good a run is [default: the one that compares these runs fairly]. Findings use the first."""
    cost: tuple[str, ...] = ()
    """Columns that say what a run costs [default: what the design varies]. Findings use the first."""
    where: str | None = None
    """An expression; only rows that it holds for are shown [default: all rows]."""
    group_by: str | None = None
    """Expressions whose groups are averaged [default: the axes without the seed, if seeds repeat]."""
    reach: dict[str, float] = field(default_factory=dict)
    """Bounds by column: name the cheapest run that meets them."""
    under: dict[str, float] = field(default_factory=dict)
    """Limits by column: name the best run within them."""
    detect: float | None = None
    """A difference in quality: say how many seeds it takes to show it."""
    columns: tuple[str, ...] = ()
    """The columns to show [default: the axes, the main measures, and the state if a run has not finished]."""
    sort: str | None = None
    """The column to sort by [default: the first quality]."""
    top: int = DEFAULT_TOP
    """Rows that the terminal shows at most, besides the frontier's; 0 shows all."""


def split_names(text: str | None) -> tuple[str, ...]:
    """Return the names in a text such as `loss,dollars`; none for None."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
