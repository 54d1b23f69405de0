"""Cheaper designs that identify a law equally well: cells are exchanged for others that give as much information.

The method is greedy exchange. Each answer that decisions depend on (the exponents, and N*, D* and L* at the target)
must stay at least as well known as with the given design. Each step tries to drop a cell, the most expensive first, and
to make up for the wider intervals with the candidates that narrow them most for their cost. A step is accepted if the
whole design becomes cheaper, and the search ends when no step does. It finds a cheaper design, not the cheapest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.analysis.scaling.checks import price_of, refusals, size_of
from lmexp.analysis.scaling.points import Points
from lmexp.planning.simulate import Assumed, gradients, jacobian, names_of, standard_errors

Widest = Callable[[npt.NDArray[np.bool_]], float]
"""Maps a mask (cells and candidates,) to the largest ratio of standard errors, after over before, among the answers."""

NOT_NEEDED = ("A", "B", "Nc", "Dc", "E", "gamma")
"""Answers whose intervals may widen: no decision depends on these constants by themselves."""
RATIOS = 8
"""Candidates per size: numbers of tokens, evenly spaced in logs over the range of the design."""
MAX_ADDED = 2
"""Most candidates that may replace one dropped cell."""
SAME_TOKENS = 0.01
"""Numbers of tokens whose logarithms differ by less than this count as one run."""
SLACK = 1 + 1e-9


@dataclass(frozen=True)
class Exchange:
    """A cheaper design."""

    kept: list[int]
    """Positions of the cells that stay."""
    dropped: list[int]
    added: list[tuple[int, float]]
    """Cells to add: the position of a cell of the same size, and the tokens."""
    flops_before: float
    flops_after: float
    widest: float
    """The largest ratio of interval widths, after over before, among the needed answers; at most 1."""


def exchange(points: Points, assumed: Assumed, target: float) -> Exchange | None:
    """Return a cheaper design that identifies the law equally well, or None if the search finds none.

    Every row of `points` must be its own unit, because milestones of one trunk cannot be exchanged.
    """
    if points.n_units < len(points):
        return None
    sizes, tokens = _candidates(points)
    wanted = [i for i, name in enumerate(names_of(assumed)) if name not in NOT_NEEDED]
    grads = gradients(assumed, target, price_of(points))[wanted]
    per_token = points.flops / points.tokens
    whole = replace_rows(points, [*range(len(points)), *sizes], np.concatenate([points.tokens, tokens]))
    rows = jacobian(assumed, whole) / assumed.noise
    cost = np.concatenate([points.flops, tokens * per_token[sizes]])
    outer = rows[:, :, None] * rows[:, None, :]
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[: len(points)] = True
    before = standard_errors(outer[chosen].sum(axis=0), grads)
    if not np.isfinite(before).all():
        return None

    def widest(mask: npt.NDArray[np.bool_]) -> float:
        return float(np.max(standard_errors(outer[mask].sum(axis=0), grads) / before))

    while (better := _step(chosen, cost, widest)) is not None:
        chosen = better
    kept = [i for i in range(len(points)) if chosen[i]]
    dropped = [i for i in range(len(points)) if not chosen[i]]
    after = float(cost[chosen].sum())
    design = replace_rows(points, [(*range(len(points)), *sizes)[i] for i in np.flatnonzero(chosen)],
                          np.concatenate([points.tokens, tokens])[chosen])  # fmt: skip
    if not dropped or after > 0.99 * points.flops.sum() or refusals(design):
        return None
    added = [(int(sizes[i]), float(tokens[i])) for i in range(len(tokens)) if chosen[len(points) + i]]
    return Exchange(kept, dropped, added, float(points.flops.sum()), after, widest(chosen))


def _step(chosen: npt.NDArray[np.bool_], cost: Floats, widest: Widest) -> npt.NDArray[np.bool_] | None:
    """Return the first exchange that is cheaper and keeps all answers as well known, or None if there is none.

    The most expensive cells are tried first.
    """
    for expensive in sorted(np.flatnonzero(chosen), key=lambda i: -cost[i]):
        trial = chosen.copy()
        trial[expensive] = False
        saved = float(cost[expensive])
        for _ in range(MAX_ADDED + 1):
            if (now := widest(trial)) <= SLACK:
                return trial
            open_ = [i for i in np.flatnonzero(~trial) if i != expensive and cost[i] < saved]
            if not open_:
                break
            gains = [_gain(trial, int(i), now, widest) / cost[i] for i in open_]
            best = open_[int(np.argmax(gains))]
            trial[best] = True
            saved -= float(cost[best])
    return None


def _gain(trial: npt.NDArray[np.bool_], i: int, now: float, widest: Widest) -> float:
    """Return how much narrower the widest answer gets if one cell is added."""
    more = trial.copy()
    more[i] = True
    after = widest(more)
    return 1.0 / after if not np.isfinite(now) else max(min(now, 1e9) - after, 0.0)


def _candidates(points: Points) -> tuple[npt.NDArray[np.intp], Floats]:
    """Return candidate cells: the position of a run of the same size, and tokens within the range of the design.

    No candidate needs more FLOPs than the design's largest run, and none repeats a run that the design already has.
    """
    of_size = size_of(points.params)
    first = np.array([int(np.flatnonzero(of_size == size)[0]) for size in range(int(of_size.max()) + 1)])
    spaced = np.geomspace(points.tokens.min(), points.tokens.max(), RATIOS)
    sizes, tokens = (grid.ravel() for grid in np.meshgrid(first, spaced, indexing="ij"))
    fits = tokens * (points.flops / points.tokens)[sizes] <= points.flops.max() * SLACK
    same = (of_size[sizes][:, None] == of_size) & (np.abs(np.log(tokens[:, None] / points.tokens)) < SAME_TOKENS)
    fits &= ~same.any(axis=1)
    return sizes[fits], tokens[fits]


def replace_rows(points: Points, rows: Sequence[int], tokens: Floats) -> Points:
    """Return points with the sizes of `rows` and with other tokens, each as its own unit."""
    at = np.asarray(rows)
    return replace(
        points,
        params=points.params[at],
        tokens=tokens,
        flops=(points.flops / points.tokens)[at] * tokens,
        loss=points.loss[at],
        unit=np.arange(len(at)).astype(str),
        precision=None,
        costs={},
    )
