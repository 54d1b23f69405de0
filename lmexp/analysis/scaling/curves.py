"""Loss curves of single runs with their learning rates: from tables of step, lr and loss, and from runs.

A law of curves needs the sum of learning rates up to each point. Between two points the rate is taken as linear. A file
may start after the warm-up, so the rate is taken to rise linearly from 0 before the first point. The law describes the
time after the warm-up: points at which the rate still rises to its peak are not fitted, but count in the sum.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Floats, Marks, as_numbers
from lmexp.analysis.scaling.readers import headings_of, read_table
from lmexp.errors import UserError, nearest
from lmexp.files import why_not_a_file
from lmexp.runs.directory import RunDir, points_in
from lmexp.units import printable

NAMES: dict[str, tuple[str, ...]] = {
    "step": ("step", "steps", "iteration", "iter", "global_step"),
    "lr": ("lr", "learning_rate", "learning-rate"),
    "loss": ("val_loss", "validation_loss", "eval_loss", "loss", "train_loss", "training_loss"),
}
"""Usual names of each column, in upper or lower case; the first one that a table has is used."""
MIN_POINTS = 20
"""Fewest points of a curve after its warm-up."""
MAX_POINTS = 400
"""A longer curve is thinned to this many points, evenly: neighbours say nearly the same."""


@dataclass(frozen=True, eq=False)
class Curve:
    """One run's learning rate and loss at the steps where they were logged."""

    name: str
    step: Floats
    """(n,) optimizer steps, increasing; the loss of a step is measured before its update."""
    lr: Floats
    """(n,) learning rate of the step."""
    loss: Floats
    """(n,) in nats per token; NaN where only the learning rate is known."""

    @cached_property
    def lr_sum(self) -> Floats:
        """(n,) sum of the learning rates of all steps before each point, the warm-up included."""
        before = np.diff(self.step) * (self.lr[1:] + self.lr[:-1]) / 2
        return self.step[0] * self.lr[0] / 2 + np.concatenate([[0.0], np.cumsum(before)])

    @cached_property
    def peak(self) -> int:
        """The index at which the learning rate first reaches its highest value, the end of the warm-up."""
        return int(np.argmax(self.lr >= self.lr.max() * (1 - 1e-6)))

    @cached_property
    def drops(self) -> "Drops":
        """The changes of the learning rate after the warm-up."""
        size = self.lr[:-1] - self.lr[1:]
        at = np.flatnonzero((size != 0) & (np.arange(len(size)) >= self.peak) & (self.lr[1:] > 0)) + 1
        return Drops(size[at - 1], self.lr[at], self.lr_sum[at])

    @cached_property
    def fitted(self) -> Marks:
        """(n,) the points that a law is fitted to: after the warm-up, and with a loss."""
        return (np.arange(len(self.step)) >= self.peak) & np.isfinite(self.loss) & (self.lr_sum > 0)

    def check(self) -> "Curve":
        """Return the curve. Raises UserError if it has too few points after its warm-up for a fit."""
        if (count := int(self.fitted.sum())) < MIN_POINTS:
            raise UserError(
                f"{self.name} has {count} losses after the learning rate's peak: a law of curves takes {MIN_POINTS}"
            )
        return self


@dataclass(frozen=True, eq=False)
class Drops:
    """The changes of a schedule, one an entry."""

    size: Floats
    """(m,) how far the learning rate falls; below 0 where it rises."""
    lr: Floats
    """(m,) the learning rate after the change."""
    lr_sum: Floats
    """(m,) sum of the learning rates before the change."""


def curve_of_file(file: Path, loss: str | None = None) -> Curve:
    """Read a curve from a table with the columns step, lr and, if it was measured, loss, or from a metrics.jsonl.

    `loss` names the column of the loss. Raises UserError if the file cannot be read or lacks a column, or if a number
    is none, with the line.
    """
    if file.suffix.lower() != ".jsonl":
        return curve_of_frame(read_table(file).dropna(how="all"), str(file), loss)
    if reason := why_not_a_file(file):
        raise UserError(f"{file}: {reason}")
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as problem:
        raise UserError(f"{file} cannot be read: {problem.strerror or problem}") from None
    return _curve_of_points(points_in(lines), str(file), loss)


def curve_of_run(run: RunDir, loss: str | None = None) -> Curve:
    """Return the curve of a run: its validation losses if there are enough, else those of training."""
    return _curve_of_points(run.read_curve(), run.path.name, loss)


def _curve_of_points(points: Iterable[Mapping[str, object]], name: str, loss: str | None) -> Curve:
    """Return the curve of points such as those of metrics.jsonl; a validation point may lack the learning rate."""
    frame = pd.DataFrame(list(points))
    if loss is None and {"loss", "train_loss"} <= set(frame.columns) and frame["loss"].notna().sum() < MIN_POINTS:
        loss = "train_loss"
    if {"step", "lr"} <= set(frame.columns):
        frame = frame.groupby("step", as_index=False).first()
        known = frame["lr"].notna()
        if known.any():
            frame["lr"] = np.interp(frame["step"], frame["step"][known], frame["lr"][known])
    return curve_of_frame(frame, name, loss)


def curve_of_frame(frame: pd.DataFrame, name: str, loss: str | None = None) -> Curve:
    """Return the curve of a table. Raises UserError as curve_of_file does."""
    if frame.empty:
        raise UserError(f"{name} has no points")
    headings = headings_of(frame)
    named = {
        key: column for key, usual in NAMES.items() if (column := next(filter(None, map(headings.get, usual)), None))
    }
    if loss is not None:
        if loss not in frame.columns:
            raise UserError(f"{name} has no column '{printable(loss)}'.{nearest(loss, map(str, frame.columns))}")
        named["loss"] = loss
    for key in ("step", "lr"):
        if key not in named:
            shown = printable(", ".join(map(str, frame.columns)))[:200]
            raise UserError(f"{name} has no column '{key}': a curve is step, lr and loss. It has: {shown}")
    columns = {key: as_numbers(frame[column]) for key, column in named.items()}
    for key in ("step", "lr"):
        bad = ~(np.isfinite(columns[key]) & (columns[key] >= 0))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise UserError(
                f"{name}, point {row + 1}: {named[key]} is {frame[named[key]].iloc[row]!r}, no number from 0"
            )
    step, lr = (columns[key].to_numpy(dtype=np.float64) for key in ("step", "lr"))
    losses = columns["loss"].to_numpy(dtype=np.float64) if "loss" in named else np.full(len(step), np.nan)
    if not (np.diff(step) > 0).all():
        raise UserError(f"{name}: steps do not increase from row to row; one curve is one file")
    if not lr.max() > 0:
        raise UserError(f"{name}: the learning rate is 0 throughout")
    losses = np.where(losses > 0, losses, np.nan)
    return _thinned(Curve(name, step, lr, losses))


def _thinned(curve: Curve) -> Curve:
    """Return a curve of at most MAX_POINTS points; all jumps of the learning rate stay."""
    n = len(curve.step)
    if n <= MAX_POINTS:
        return curve
    jumps = np.flatnonzero(np.abs(np.diff(curve.lr)) > 0.2 * curve.lr.max())
    kept = np.unique(np.concatenate([np.linspace(0, n - 1, MAX_POINTS).astype(int), jumps, jumps + 1, [curve.peak]]))
    return Curve(curve.name, curve.step[kept], curve.lr[kept], curve.loss[kept])
