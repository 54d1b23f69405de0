"""What a sweep file says of its study: which cells there are, or how a search finds them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from lmexp.config.base import Count, Section, Seed


class Interval(Section):
    """Numbers from low to high, both included; whole ones where low, high and step are."""

    low: int | float
    high: int | float
    log: bool = False
    """Whether ratios count alike, not differences: from 1e-4 to 1e-3 is as far as from 1e-3 to 1e-2."""
    step: Annotated[int | float, Field(gt=0)] | None = None
    """Distance of two neighbours; null means 1 where low and high are whole, else any number between them."""

    @model_validator(mode="after")
    def _check(self) -> "Interval":
        if not self.low < self.high:
            raise ValueError(f"low={self.low} must be less than high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, and it is {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"step={self.step} is more than high - low")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether its numbers are integers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step) if number is not None)


class Choices(Section):
    """A list of values."""

    choices: Annotated[list[bool | int | float | str | None], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> "Choices":
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("a value is in it twice")
        return self


def _kind_of_axis(value: Any) -> str:
    return "choices" if isinstance(value, Choices) or (isinstance(value, dict) and "choices" in value) else "interval"


def _a_mapping(value: Any) -> Any:
    if not isinstance(value, dict | Interval | Choices):
        raise ValueError("write {low: ..., high: ...} or {choices: [...]}")
    return value


SearchAxis = Annotated[
    Annotated[Interval, Tag("interval")] | Annotated[Choices, Tag("choices")],
    Discriminator(_kind_of_axis),
    BeforeValidator(_a_mapping),
]
"""The values of one key that a search draws from."""


class Pruning(Section):
    """Asynchronous successive halving (ASHA, Li et al. 2020): at each rung only the best of every few go on.

    Rungs are shares of the budget: `from`, then `reduction` times as much each time, below 1.
    """

    reduction: Annotated[int, Field(ge=2)] = 3
    """One of this many trials that have reached a rung goes on. Until as many have reached it, all of them go on."""
    start: Annotated[float, Field(gt=0, lt=1)] = Field(0.25, alias="from")
    """The first rung."""
    by: Literal["measured", "predicted"] = "measured"
    """What is compared: the quality at the rung, or the final loss that is predicted there. A run without a prediction
    goes on."""

    @property
    def rungs(self) -> list[float]:
        """The shares of the budget at which trials are compared."""
        shares = [self.start]
        while shares[-1] * self.reduction < 1 - 1e-9:
            shares.append(shares[-1] * self.reduction)
        return shares


class SearchSpec(Section):
    """The `sweep.search:` node: cells that are chosen one after another, by what the earlier ones gave."""

    sampler: Literal["tpe", "random", "nsga2"] = "tpe"
    """Who proposes: a tree-structured Parzen estimator (Bergstra et al. 2011), chance, or NSGA-II (Deb et al. 2002)."""
    trials: Count
    """In all, those of earlier calls included."""
    objectives: Annotated[dict[str, Literal["minimize", "maximize"]], Field(min_length=1)] = {"loss": "minimize"}
    """Columns of the record; of several, the search is for their frontier."""
    space: Annotated[dict[str, SearchAxis], Field(min_length=1)]
    """The keys that vary, and between which values."""
    prune: Pruning | None = None
    """When trials are given up early; null: never."""
    parallel: Count | None = None
    """Trials under way at a time; null means as many as there are places here, a fifth of the trials on a cluster."""
    seed: Seed = 0
    """Seed of the sampler. With one trial at a time, the same seed proposes the same trials."""


class SweepSpec(Section):
    """The `sweep:` node of a sweep file: which cells the study has."""

    question: str | None = None
    """What the study is to find out; the report opens with it."""
    grid: dict[str, list[Any]] = {}
    """Axes that are crossed: every combination is a cell."""
    zip: dict[str, list[Any]] = {}
    """Axes of one length that advance together; crossed with the grid."""
    points: list[dict[str, Any]] = []
    """Further cells, each named in full."""
    exclude: list[dict[str, Any]] = []
    """Cells that match all the values of one of these are left out."""
    seeds: Count | list[Seed] | None = None
    """How many seeds (0, 1, ...) or which."""
    search: SearchSpec | None = None
    """Instead of all these: cells that are chosen as results come in."""

    @model_validator(mode="after")
    def _check(self) -> "SweepSpec":
        beside = [name for name in ("grid", "zip", "points", "exclude", "seeds") if getattr(self, name)]
        if self.search is not None and beside:
            raise ValueError(f"a search chooses its cells itself, so it cannot have {beside[0]} too")
        return self
