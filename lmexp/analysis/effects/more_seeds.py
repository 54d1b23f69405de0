"""What it takes to know the noise of a study in which no setting has two finished seeds."""

import shlex
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.columns import in_words
from lmexp.analysis.effects.pairing import comparable_runs
from lmexp.analysis.frontier import numbers
from lmexp.analysis.table import Study
from lmexp.config.overrides import written
from lmexp.runs.columns import higher_is_better
from lmexp.units import sentence

MORE_SEEDS = 3
"""More seeds of one setting that are proposed if none is repeated: 4 seeds give 3 degrees of freedom."""
_BEFORE_COMMANDS = ": `"


def about_unknown_noise(study: Study, quality: str, cost: str) -> list[str]:
    """Say that noise is unknown since no setting has two finished seeds, and what it takes to know it."""
    runs = comparable_runs(study, quality)
    if len(runs) < 2 or not study.axes:
        return []
    unknown = "No cell has two finished seeds, so it is unknown which differences are noise"
    return [f"{unknown}{_cheapest_way(study, runs, cost)}."]


def without_commands(said: str) -> str:
    """Return the sentence of `about_unknown_noise` without its commands, which make it long."""
    return sentence(said.split(_BEFORE_COMMANDS)[0])


def _cheapest_way(study: Study, runs: pd.DataFrame, cost: str) -> str:
    """Return how to repeat the cheapest run with other seeds, its price, and the commands if axes name its cell."""
    spent = numbers(runs, cost)
    if not np.isfinite(spent).any() or higher_is_better(cost):
        return ""
    row = runs.iloc[int(np.nanargmin(spent))]
    price = in_words(cost, MORE_SEEDS * float(np.nanmin(spent)))
    said = f"; {MORE_SEEDS} more seeds of {row['slug']} would show it, for about {price}"
    is_search = bool(study.objectives)  # all trials differ in its axes
    if len(study.names) > 1 or not (is_search or _is_crossed(study)):
        return said
    words = [f"{axis}={written(_plain(row[axis]))}" for axis in study.axes if axis != "seed"]
    words += ["sweep.search=null"] * is_search
    of_sweep = study.command or ("lmexp", "sweep", study.name)
    command = shlex.join([*of_sweep, *words, f"sweep.seeds={MORE_SEEDS + 1}"])
    return f"{said}{_BEFORE_COMMANDS}{command}`, then `{shlex.join(['lmexp', 'report', study.name, '--all'])}`"


def _is_crossed(study: Study) -> bool:
    """Whether the cells of a study are all combinations of its axes, so that one value of each names a cell."""
    cells = study.table.drop_duplicates("run_id")
    return len(cells) + len(study.skipped) == int(np.prod([len(values) for values in study.axes.values()]))


def _plain(value: Any) -> Any:
    return None if pd.isna(value) else value.item() if isinstance(value, np.generic) else value
