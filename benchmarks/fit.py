"""What the solver of scaling laws saves: bootstraps of Chinchilla's law against the usual L-BFGS from many starts.

Both sides in turn, one thread, CPU time, medians and ratio: python benchmarks/fit.py [points.csv]

The points are those of a csv with params, tokens and loss, or 234 runs drawn here around Epoch's law with a noise of
0.5 %. One piece of ours is the optimum and a thousand refits. One of L-BFGS is a single resample from a few of the
usual 4500 starts, for all of them would take half a minute; the figures for 4500 starts are this one multiplied.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported

import itertools
import sys
import time
from statistics import median

import numpy as np
from scipy.optimize import minimize

from lmexp.analysis.scaling.bootstrap import bootstrap
from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, chinchilla
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.solver import descend, solve
from lmexp.analysis.scaling.surface import Surface

PAIRS = 5
BOOTSTRAPS = 1000
STARTS = 20
USUAL_STARTS = list(
    itertools.product(
        np.arange(-1, 1.5, 0.5), range(0, 30, 5), range(0, 30, 5), np.arange(0, 2.5, 0.5), np.arange(0, 2.5, 0.5)
    )
)
"""Hoffmann et al. 2022, appendix D.2: ln E, ln A, ln B, alpha, beta."""
DELTA = 1e-3


def points() -> Points:
    """Return the points of the csv that was named, or runs drawn around Epoch's law."""
    if len(sys.argv) > 1:
        table = np.genfromtxt(sys.argv[1], delimiter=",", names=True)
        params, tokens, loss = (table[name].astype(float) for name in ("params", "tokens", "loss"))
    else:
        draws = np.random.default_rng(0)
        params, ratio = np.exp(draws.uniform(np.log(5e7), np.log(1.6e10), 234)), np.exp(draws.uniform(0, 6, 234))
        tokens = params * ratio
        noise = 0.005 * draws.standard_normal(234)
        loss = chinchilla.loss(PUBLISHED_LAWS["epoch"].theta, params, tokens) * np.exp(noise)
    return Points(params, tokens, 6 * params * tokens, loss, np.arange(len(loss)).astype(str))


def lbfgs(runs: Points, weights: np.ndarray, starts: list[tuple[float, ...]]) -> float:
    """Return the least objective of one resample (n,) over the starts: the usual way, with its gradient by hand."""
    log_n, log_d, log_l = np.log(runs.params), np.log(runs.tokens), np.log(runs.loss)

    def objective(at: np.ndarray) -> tuple[float, np.ndarray]:
        terms = np.stack([np.full_like(log_n, at[0]), at[1] - at[3] * log_n, at[2] - at[4] * log_d])
        top = terms.max(axis=0)
        parts = np.exp(terms - top)
        total = parts.sum(axis=0)
        residual = top + np.log(total) - log_l
        pull = np.clip(residual, -DELTA, DELTA)
        share = weights * pull * parts / total
        slope = np.array([*share.sum(axis=1), -share[1] @ log_n, -share[2] @ log_d])
        return float(weights @ (pull * (residual - pull / 2))), slope

    ends = (
        minimize(objective, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-12, "maxiter": 1000})
        for start in starts
    )
    return min(end.fun for end in ends)


def main() -> None:
    """Time both ways in turn, and compare what they found."""
    runs = points()
    surface = Surface.of(chinchilla, runs)
    draws = np.random.default_rng(1)
    units = np.arange(len(runs))
    solves, ours, theirs, gaps = [], [], [], []
    for pair in range(PAIRS):
        began = time.process_time()
        optima, _ = solve(surface, np.ones(len(runs)), DELTA)
        solves.append(time.process_time() - began)
        bootstrap(surface, units, optima.parameters[:3], DELTA, BOOTSTRAPS, seed=pair)
        ours.append(time.process_time() - began)
        weights = draws.multinomial(len(runs), np.full(len(runs), 1 / len(runs))).astype(float)
        starts = [USUAL_STARTS[i] for i in draws.choice(len(USUAL_STARTS), STARTS, replace=False)]
        began = time.process_time()
        least = lbfgs(runs, weights, starts)
        theirs.append((time.process_time() - began) / STARTS)
        mine = descend(surface, weights[None], optima.parameters[:1], DELTA).objective[0]
        gaps.append(least / mine - 1)
    fast, slow = median(ours), median(theirs) * len(USUAL_STARTS) * BOOTSTRAPS
    print(f"{len(runs)} points, {BOOTSTRAPS} bootstraps, delta {DELTA:g}, CPU time on one thread, {PAIRS} pairs")
    print(
        f"solver: median {fast:.2f} s ({min(ours):.2f} to {max(ours):.2f}), the optimum itself {median(solves):.2f} s"
    )
    print(
        f"L-BFGS: median {median(theirs) * 1e3:.1f} ms a start; {len(USUAL_STARTS)} each would take {slow / 3600:.1f} h"
    )
    few = slow / len(USUAL_STARTS) * STARTS
    print(f"ratio of medians: {slow / fast:,.0f}; with {STARTS} starts each, {few / fast:,.0f}")
    worse = ", ".join(f"{gap:+.1e}" for gap in gaps)
    print(f"objective of L-BFGS from {STARTS} starts above the solver's, in each pair: {worse}")


if __name__ == "__main__":
    main()
