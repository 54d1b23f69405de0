"""How many seeds an arm needs to show a difference, from the scatter that a study's own seeds have."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from lmexp.analysis.columns import format_number, in_words, number_format
from lmexp.analysis.effects.effects import all_effects, noise_floor, paired_noise
from lmexp.analysis.effects.noise import LEVEL, POWER, Noise, seeds_needed, smallest_difference
from lmexp.analysis.frontier import is_done
from lmexp.analysis.rankable import obstacles
from lmexp.analysis.table import Study, final_rows
from lmexp.errors import UserError
from lmexp.runs.columns import column


@dataclass(frozen=True)
class Needed:
    """Seeds an arm by one way of comparing; None is more than a million."""

    paired: bool
    """Whether the arms share their seeds, and are compared seed by seed."""
    noise: Noise
    """The standard deviation between the seeds of one arm, or between the paired differences."""
    seeds: int | None
    low: int | None
    high: int | None
    """The same at the ends of the 95 % interval of the noise."""


@dataclass(frozen=True)
class Detection:
    """What it takes to show a difference of a quality."""

    quality: str
    difference: float
    ways: tuple[Needed, ...]
    """Unpaired, then paired where arms share seeds; none where the noise is unknown."""
    present: int
    """The seeds that an arm has now: the median."""
    all_equal: bool = False
    """Whether seeds were repeated and changed nothing."""

    @property
    def sentences(self) -> list[str]:
        """What it takes, in words."""
        wanted = in_words(self.quality, self.difference)
        if self.all_equal:
            return [f"All seeds of a cell gave the same {column(self.quality).title}: they say nothing of noise."]
        if not self.ways:
            return [
                f"Nobody knows how many seeds show a difference of {wanted}: no cell has two finished seeds. "
                "Run two or three seeds of one cell or of several first."
            ]
        said = [
            f"To show a difference of {wanted} in {column(self.quality).title} (in {POWER:.0%} of all cases, "
            f"two-sided {LEVEL:.0%}):"
        ]
        for way in self.ways:
            spec = number_format(self.quality, [way.noise.sd]) or ",.4g"
            how = "with shared seeds, compared seed by seed" if way.paired else "with any seeds"
            sd = "of the differences" if way.paired else "of a cell's seeds"
            said.append(
                f"{_count(way.seeds)} an arm {how}: standard deviation {sd} "
                f"{format_number(way.noise.sd, spec)}, from {way.noise.df} degrees of freedom, so between "
                f"{_number(way.low)} and {_number(way.high)}."
            )
        least = smallest_difference(self.present, self.ways[0].noise.sd)
        if least:
            said.append(
                f"The {self.present} seeds that there are show a difference of {in_words(self.quality, least)}."
            )
        return said

    @property
    def document(self) -> dict[str, Any]:
        """The same for other programs."""
        return {
            "quality": self.quality,
            "difference": self.difference,
            "power": POWER,
            "level": LEVEL,
            "ways": [
                {
                    "paired": way.paired,
                    "sd": way.noise.sd,
                    "sd_interval": [way.noise.low, way.noise.high],
                    "df": way.noise.df,
                    "seeds": way.seeds,
                    "seeds_interval": [way.low, way.high],
                }
                for way in self.ways
            ],
        }


def seeds_to_show(study: Study, quality: str, difference: float, cost: str = "train_seconds") -> Detection:
    """Return how many seeds an arm show a difference. Raises UserError unless it is above 0."""
    if not 0 < difference < float("inf"):
        raise UserError(f"--detect {difference:g}: a difference above 0, in the unit of the quality")
    if len(study.tasks) > 1:
        raise UserError(f"--detect is about one task: add --where \"task == '{study.tasks[0]}'\"")
    if reasons := obstacles(study.table[is_done(study.table)], quality):
        raise UserError(f"--detect is about runs that compare. {reasons[0]} {study.how_to_choose(quality)}".rstrip())
    floor = noise_floor(study, quality)
    paired = paired_noise(all_effects(study, quality, cost), floor) if floor else None
    ways = [_needed(noise, difference, noise is paired) for noise in (floor, paired) if noise and noise.sd > 0]
    axes = [axis for axis in study.varied if axis != "seed"]
    runs = final_rows(study.table)
    by = [runs[axis].astype(str) for axis in axes] or [pd.Series("", index=runs.index)]
    sizes = runs.groupby(by)["seed"].nunique()
    return Detection(
        quality, difference, tuple(ways), int(sizes.median()) if len(sizes) else 0, bool(floor and not ways)
    )


def _needed(noise: Noise, difference: float, paired: bool) -> Needed:
    seeds, low, high = (seeds_needed(difference, sd, paired) for sd in (noise.sd, noise.low, noise.high))
    return Needed(paired, noise, seeds, low, high)


def _count(seeds: int | None) -> str:
    return f"{_number(seeds)} seeds"


def _number(seeds: int | None) -> str:
    return "more than a million" if seeds is None else f"{seeds:,}"
