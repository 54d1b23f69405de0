"""Why a search gave a trial up: the sentence in the run's state, and the numbers in it."""

import re
from dataclasses import dataclass

from lmexp.runs.state import PRUNED

_SENTENCE = re.compile(
    re.escape(PRUNED) + r"(?P<share>\S+) % of its budget: (?P<objective>\S+) (?P<value>\S+) is not among the best "
    r"(?P<kept>\d+) of (?P<reached>\d+) \((?P<last>\S+) would be\)"
)


@dataclass(frozen=True)
class Pruned:
    """A trial that was stopped at a rung."""

    share: float
    """Share of the budget at the rung."""
    objective: str
    value: float
    """The objective at the rung."""
    last: float
    """That of the last trial that continued."""
    kept: int
    """Trials that may continue at this rung."""
    reached: int
    """Trials that have reached it."""

    @property
    def behind(self) -> float:
        """By how much the trial was worse than the last one that continued."""
        return abs(self.value - self.last)

    @property
    def sentence(self) -> str:
        """The reason in the run's state."""
        return (
            f"{PRUNED}{100 * self.share:g} % of its budget: {self.objective} {self.value:.4f} is not "
            f"among the best {self.kept} of {self.reached} ({self.last:.4f} would be)"
        )


def read_pruned(reason: str) -> Pruned | None:
    """Return what the reason of a cancelled run says; None if it is not of a trial that a search gave up."""
    found = _SENTENCE.fullmatch(reason)
    if found is None:
        return None
    try:
        share, value, last = (float(found[name]) for name in ("share", "value", "last"))
    except ValueError:
        return None
    return Pruned(share / 100, found["objective"], value, last, int(found["kept"]), int(found["reached"]))
