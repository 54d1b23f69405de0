"""The fitted irreducible loss E of each law, compared with the floor of the text if that is known."""

from dataclasses import dataclass

from lmexp.analysis.scaling.law_fit import LawFit


@dataclass(frozen=True)
class Irreducible:
    """The irreducible loss of one law, and the loss that no model can beat."""

    by: str
    """The name of the law."""
    value: float
    low: float
    high: float
    """95 % confidence interval; 0 to infinity if the points do not identify E."""
    floor: float
    is_fixed: bool = False
    """Whether E was given, not fitted."""

    @property
    def is_inside(self) -> bool:
        """Whether the floor lies in the interval."""
        return self.low <= self.floor <= self.high


def irreducible(laws: dict[str, LawFit], floor: float | None) -> tuple[Irreducible, ...]:
    """Return E of each law that has one, beside the floor; nothing if the floor is unknown."""
    if floor is None:
        return ()
    return tuple(
        Irreducible(name, law.theta["E"], *law.intervals["E"], floor, law.floor_is_fixed)
        for name, law in laws.items()
        if "E" in law.theta
    )
