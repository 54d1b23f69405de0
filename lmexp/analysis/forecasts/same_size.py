"""Which run a forecast is about: a run of its size, trained the same way as the fitted ones.

A run is looked for in all sweeps of the outputs folder. Its size, tokens and FLOPs must be within the factors that the
forecast's file names. A budget leaves more room for the size, because widths are whole numbers and the loss is flat
around the best size; the forecast is then moved along its law to the size that was run (score.py).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmexp.analysis.scaling.readers import SIX_ND
from lmexp.analysis.table import config_values
from lmexp.cost.flops import count_run
from lmexp.cost.horizon import horizon
from lmexp.errors import UserError
from lmexp.runs.directory import MILESTONES, RECORD, RunDir, runs_in
from lmexp.runs.forecasts import Forecast
from lmexp.runs.record import Row, identity_columns, kaplan_columns

SAME = 1.1
"""FLOPs, parameters and tokens within this factor count as the same."""
SAME_BEST_SIZE = 1.5
"""A run at a budget has the best size if its parameters are within this factor of it."""
SLACK = 1e-9
MAX_VALUE = 100
"""Characters of a value that a sentence has."""
CONDITIONS = (
    *("task", "family", "precision", "context", "vocab_size"),
    *("tokenizer_fingerprint", "validation_fingerprint"),
)
"""Columns of the record that a run must have in common with the fitted ones, where all of these agree."""
CONFIG_CONDITIONS = ("optim._target_", "schedule.name", "init")
"""Keys of the config, likewise."""


@dataclass(frozen=True)
class Candidate:
    """A row of a run that a forecast may be about."""

    run: RunDir
    row: Row
    is_recorded: bool
    """Whether the row is a result; without one, its size is that of the run's config."""

    @property
    def name(self) -> str:
        """The run's sweep and name."""
        return f"{self.run.path.parent.name}/{self.run.name}"

    def sizes(self, columns: Mapping[str, str]) -> dict[str, float]:
        """Return what is known of `params`, `tokens`, `flops`, `unique_tokens` and `loss`, from the named columns."""
        known = {key: _number(self.row.get(name)) for key, name in columns.items()}
        params, tokens, epochs = known.get("params"), known.get("tokens"), _number(self.row.get("epochs"))
        if columns.get("flops") == SIX_ND and params and tokens:
            known["flops"] = 6 * params * tokens
        if tokens:
            known["unique_tokens"] = tokens / max(epochs or 1.0, 1.0)
        return {key: value for key, value in known.items() if value is not None}

    def is_of_size(self, forecast: Forecast) -> bool:
        """Whether the row has the size of a forecast's run."""
        sizes = self.sizes(forecast.columns)
        return all(
            key in sizes and abs(math.log(sizes[key] / forecast.run[key])) <= math.log(factor) + SLACK
            for key, factor in forecast.same_size.items()
        )

    def differs(self, forecast: Forecast) -> str | None:
        """Return how the run differs from the fitted ones, as part of a sentence; None if it is not known to differ."""
        unknown = [name for name in forecast.conditions if self.row.get(name) is None]
        values = config_values(self.run, unknown) | {k: v for k, v in self.row.items() if v is not None}
        for name, wanted in forecast.conditions.items():
            if name in values and values[name] != wanted:
                return f"its {name} is {str(values[name])[:MAX_VALUE]}, not {str(wanted)[:MAX_VALUE]}"
        return None


def _number(value: Any) -> float | None:
    """Return a number above 0; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < math.inf else None


def recorded(outputs: Path) -> list[Candidate]:
    """Return every row of a result in the sweeps of a folder, milestones included."""
    return [
        Candidate(run, row, True)
        for folder in _folders(outputs)
        for run in runs_in(folder)
        for row in run.read_record() or run.read_milestones()
    ]


def result_files(outputs: Path) -> list[Path]:
    """Return the files that `recorded` reads, without opening one."""
    return sorted(file for name in (RECORD, MILESTONES) for file in outputs.glob(f"[!.]*/[!.]*/{name}"))


def begun(outputs: Path) -> list[Candidate]:
    """Return the rows that runs will have which have no record yet but are being trained, or have shown a curve."""
    return [
        Candidate(run, row, False)
        for folder in _folders(outputs)
        for run in runs_in(folder)
        if not run.read_record() and (run.is_alive(run.read_state()) or run.read_curve())
        for row in _coming(run)
    ]


def _folders(outputs: Path) -> list[Path]:
    return sorted(folder for folder in outputs.glob("[!.]*/") if folder.is_dir())


def _coming(run: RunDir) -> Iterator[Row]:
    """Yield the rows of a run's end and of its milestones, as far as its config and its state tell them.

    A config that cannot be read yields nothing: what became of the run is then judged by its record.
    """
    with suppress(UserError):
        config = run.read_config()
        count, state = count_run(config), run.read_state()
        ends = []
        with suppress(UserError):
            budget = config.budget.epochs
            length = horizon(config, 1) if budget is None else None
            if length and length.tokens:
                ends = [length.tokens, *(each.steps * config.batch.tokens for each in length.milestones)]
        if not ends and state.share:  # in epochs, seconds or dollars: the run itself shows how far it goes
            ends = [round(state.tokens / state.share)]
        for tokens in dict.fromkeys(ends):
            row: Row = {
                **identity_columns(config),
                "n_params": count.n_params,
                "n_params_active": count.n_params_active,
                "n_params_embedding": count.n_params_embedding,
                "n_params_matmul": count.n_params_matmul,
                **count.conventions(),
                "tokens": tokens,
                "train_flops": float(tokens) * count.flops_per_token,
            }
            yield row | kaplan_columns(row)


def seen(forecast: Forecast, candidates: Sequence[Candidate]) -> Candidate | None:
    """Return a run that a forecast would come too late for; None if there is none."""
    return next(
        (each for each in candidates if each.is_of_size(forecast) and each.differs(forecast) is None),
        None,
    )
