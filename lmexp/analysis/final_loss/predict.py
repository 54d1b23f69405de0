"""Predict the final losses of the runs of a sweep that are not finished, with intervals from its finished runs.

The shared law (law.py) is fitted to the finished runs that are comparable: of the same task, model family, data and
vocabulary. The same prediction is then made for each finished run from the beginning of its curve, up to the same share
of its budget, with the other runs' levels. Three things follow from these errors:

- their mean is taken off, which corrects what the law gets wrong in all runs alike;
- the 95 % interval is that of one more error: Student's t times their standard deviation times sqrt(1 + 1/n);
- the calibration is how far off the finished runs are if each is predicted with the errors of the others, and how many
  of them lie in the intervals that these give.

The four numbers of the shape are fitted to all finished runs, also to the one that is left out.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmexp.analysis.arrays import Floats
from lmexp.analysis.final_loss.curves import MAX_LOSS, MILESTONES, Kind, LossCurve, comparable_key, curves_of, why_not
from lmexp.analysis.final_loss.law import SharedLaw, fit_law
from lmexp.analysis.quantiles import student
from lmexp.analysis.scaling.bootstrap import around
from lmexp.config.schema import RunConfig
from lmexp.errors import UserError
from lmexp.runs.directory import RunDir, runs_in
from lmexp.runs.find import runs_of
from lmexp.runs.record import Row, is_number
from lmexp.units import listed

MIN_FINISHED = 4
"""Fewest finished runs: with fewer errors, nothing is known about how large they are."""
MAX_FINISHED = 64
"""Of more finished runs, those that finished last."""
SHARES = (0.25, 0.5, 0.75)
"""Shares of the budget at which the calibration is reported."""
KINDS: tuple[Kind, Kind] = ("loss", "train_loss")
"""Training losses are used only where there are no evaluations yet: they are noisier."""
NO_POINT = "its curve has no point after the warm-up yet"


@dataclass(frozen=True)
class Prediction:
    """The final loss of a run, predicted."""

    loss: float
    """In nats per token, the validation loss of the record."""
    low: float
    high: float
    """The 95 % interval."""
    share: float
    """Share of the budget at the last point that the prediction rests on."""
    finished: int
    """Finished runs whose errors give the interval."""
    kind: Kind
    """Whether it rests on validation losses or on training losses."""


@dataclass(frozen=True)
class Calibration:
    """How far off the predictions were on the finished runs, each predicted from the other ones."""

    group: str
    """What tells these runs apart from others of the sweep, such as their family; empty if all are comparable."""
    share: float
    """Share of the budget up to which the curves were used."""
    kind: Kind
    runs: int
    median_error: float
    """Median of |predicted/measured - 1|."""
    inside: int
    """Runs whose loss lies in its 95 % interval."""


@dataclass(frozen=True, eq=False)
class _Finished:
    """A finished run that others can be compared with."""

    key: tuple[Any, ...]
    ended: float
    curves: dict[Kind, LossCurve]


class FinalLossPredictor:
    """Predicts the final losses of the runs of one folder, again and again while they train.

    What it has read of a finished run is kept, and the law is fitted again only if another run has finished.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._configs: dict[Path, RunConfig | str] = {}
        """The config of each run, or why it cannot be read."""
        self._finished: dict[Path, _Finished | None] = {}
        """The runs that are done; None for one that cannot be compared with any other."""
        self._laws: dict[tuple[Any, ...], SharedLaw | None] = {}
        """The laws of the present finished runs, by what their runs share and the kind of their curves."""
        self._errors: dict[tuple[Any, ...], Floats] = {}
        """The errors of each law at a share of the budget."""

    def predict(self, run: RunDir, up_to: float = 1.0) -> Prediction | str:
        """Return the predicted final loss of a run that trains, from its curve up to a share of its budget.

        If it cannot be predicted, return the reason.
        """
        (only,) = self.predict_all([run], up_to)
        return only

    def predict_all(self, runs: Iterable[RunDir], up_to: float = 1.0) -> list[Prediction | str]:
        """Return for each of some runs what `predict` returns."""
        self._look()
        return [self._predict(run, up_to) for run in runs]

    def predict_named(self, names: Collection[str]) -> dict[str, Prediction | str]:
        """Return what `predict` returns for the runs of these names."""
        if not names:
            return {}
        runs = [run for run in runs_of(self._folder) if run.path.resolve().name in names]
        return dict(zip((run.path.resolve().name for run in runs), self.predict_all(runs), strict=True))

    def calibrations(self) -> list[Calibration]:
        """Return how well the final losses of the finished runs are predicted, by group and share."""
        self._look()
        rows = []
        keys = list(dict.fromkeys(run.key for run in self._finished.values() if run))
        for key in keys:
            apart = [str(part) for part, *others in zip(key, *keys, strict=True) if len(set(others)) > 1]
            for share in SHARES:
                for kind in KINDS:
                    errors = self._errors_at(key, kind, share)
                    if len(errors) >= MIN_FINISHED:
                        off, inside = calibrate(errors)
                        rows.append(Calibration(", ".join(apart), share, kind, len(errors), off, inside))
                        break
        return rows

    def _look(self) -> None:
        """Read the runs that have finished since the last call."""
        before = len(self._finished)
        # The runs of earlier commands lie in the same folder, and may be comparable too.
        for run in [*runs_of(self._folder), *runs_in(self._folder)]:
            place = run.path.resolve()
            if place not in self._finished and run.read_state().state == "done":
                self._finished[place] = self._read(run)
        if len(self._finished) > before:
            self._laws.clear()
            self._errors.clear()

    def _read(self, run: RunDir) -> _Finished | None:
        rows, config = run.read_record(), self._config(run)
        last = rows[-1] if rows else {}
        loss, tokens = last.get("loss"), last.get("tokens")
        # A finished run with milestones has the curve of its last row alone.
        if isinstance(config, str) or why_not(config) not in (None, MILESTONES):
            return None
        if (
            loss is None
            or tokens is None
            or not (is_number(loss) and is_number(tokens) and 0 < loss < MAX_LOSS and tokens > 0)
        ):
            return None
        curves = curves_of(run, config, float(tokens), float(loss))
        curves = {kind: curve for kind, curve in curves.items() if len(curve.whole.share) > 1}
        return _Finished(comparable_key(config), run.read_state().finished or 0.0, curves)

    def _config(self, run: RunDir) -> RunConfig | str:
        if run.path not in self._configs:
            try:
                self._configs[run.path] = run.read_config()
            except UserError as problem:
                self._configs[run.path] = str(problem)
        return self._configs[run.path]

    def _predict(self, run: RunDir, up_to: float) -> Prediction | str:
        config, state = self._config(run), run.read_state()
        if isinstance(config, str):
            return config
        if reason := why_not(config):
            return reason
        if not (state.tokens and state.share):
            return NO_POINT
        curves = curves_of(run, config, state.tokens / state.share, None)
        key = comparable_key(config)
        for kind in KINDS:
            beginning = curves[kind].up_to(up_to) if kind in curves else None
            if beginning is None or not len(beginning.share):
                continue
            share = float(beginning.share[-1])
            errors = self._errors_at(key, kind, share)
            law = self._law(key, kind)
            if law is None or len(errors) < MIN_FINISHED:
                continue
            half = half_width(errors)
            loss = law.predict(beginning) * float(np.exp(-errors.mean()))
            low, high = around(loss, half)
            return Prediction(loss, float(low), float(high), share, len(errors), kind)
        if not curves:
            return NO_POINT
        done = sum(run is not None and run.key == key for run in self._finished.values())
        there = "there is 1" if done == 1 else f"there are {done}"
        return f"it takes {MIN_FINISHED} finished runs of the same kind with such a curve, and {there}"

    def _law(self, key: tuple[Any, ...], kind: Kind) -> SharedLaw | None:
        """Return the law of the comparable finished runs; None if they are too few."""
        if (key, kind) not in self._laws:
            runs = [run for run in self._finished.values() if run and run.key == key and kind in run.curves]
            runs = sorted(runs, key=lambda run: run.ended)[-MAX_FINISHED:]
            law = fit_law([run.curves[kind] for run in runs]) if len(runs) >= MIN_FINISHED else None
            self._laws[key, kind] = law
        return self._laws[key, kind]

    def _errors_at(self, key: tuple[Any, ...], kind: Kind, share: float) -> Floats:
        """Return ln(predicted/measured) of the finished runs (n,), predicted at a share of their budget."""
        at = (key, kind, round(share, 6))
        if at not in self._errors:
            law = self._law(key, kind)
            errors = [law.tested(index, share) for index in range(len(law.curves))] if law else []
            self._errors[at] = np.array([error for error in errors if error is not None], dtype=np.float64)
        return self._errors[at]


def add_predictions(rows: Iterable[Row], predictor: FinalLossPredictor) -> list[Row]:
    """Return the rows of `status`, those of runs that train with the predicted final loss, or why there is none."""
    rows = list(rows)
    trains = [row["run"] for row in rows if row["state"] == "running"]
    known = predictor.predict_named(trains)
    return [row | _columns(known.get(row["run"], "")) for row in rows]


def _columns(prediction: Prediction | str) -> Row:
    if isinstance(prediction, str):
        empty = dict.fromkeys(("predicted_loss", "predicted_low", "predicted_high", "predicted_at"))
        return {**empty, "not_predicted": prediction or None}
    return {
        "predicted_loss": prediction.loss,
        "predicted_low": prediction.low,
        "predicted_high": prediction.high,
        "predicted_at": prediction.share,
        "not_predicted": None,
    }


def half_width(errors: Floats) -> float:
    """Return half the 95 % interval of one more error, around the mean of n errors (n,)."""
    n = len(errors)
    return float(student(n - 1) * errors.std(ddof=1) * np.sqrt(1 + 1 / n))


def calibrate(errors: Floats) -> tuple[float, int]:
    """Return the median relative error, and how many errors lie in the interval that the others (n - 1,) give."""
    others = [np.delete(errors, index) for index in range(len(errors))]
    off = np.array([error - rest.mean() for error, rest in zip(errors, others, strict=True)])
    inside = sum(bool(abs(one) <= half_width(rest)) for one, rest in zip(off, others, strict=True))
    return float(np.median(np.abs(np.expm1(off)))), inside


def calibrations_in_words(calibrations: Iterable[Calibration]) -> list[str]:
    """Return one sentence for each group."""
    groups: dict[str, list[Calibration]] = {}
    for each in calibrations:
        groups.setdefault(each.group, []).append(each)
    sentences = []
    for group, rows in groups.items():
        shares = listed([f"{100 * row.share:.0f} %" for row in rows])
        errors = listed([f"{100 * row.median_error:.2g} %" for row in rows])
        inside = listed([f"{row.inside} of {row.runs}" for row in rows])
        sentences.append(
            f"Final losses predicted at {shares} of training were {errors} off (median), and inside their 95 % "
            f"interval in {inside} finished runs{f' ({group})' if group else ''}."
        )
    return sentences
