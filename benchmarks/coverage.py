"""How often 95 % intervals of a single run hold the loss of the largest runs, which the law was not fitted to.

    python benchmarks/coverage.py points.csv [--loss COLUMN] [--unit COLUMN] [--where EXPRESSION] [--law NAME,...]
    python benchmarks/coverage.py            (simulated studies, in which Chinchilla's law holds exactly)

A share of the runs, those with the most compute, is held out. The law is fitted to the others, and what widens its
intervals comes from them alone: from their own largest fifth, which is held out once more. These ways are compared:

    as fitted    the interval of the bootstrap or the jackknife, and the noise of a single run
    factor       all of it, times what would have held 95 % of the inner hold-out (split conformal prediction)
    constant     a lack of fit that is the same at every distance beyond the runs, from the inner hold-out
    added        lmexp's lack of fit, added to the constants' uncertainty instead of taking the larger of the two
    square       lmexp's, but growing with the square of the distance
    lmexp        what `lmexp fit` prints (lmexp/analysis/scaling/lack_of_fit.py)

For a table, the correlation of the errors with the logarithm of tokens per parameter is shown, too: noise has none,
and a law that does not fit has one. For each way: the share of the held-out runs inside, and the median of how many
times as wide the interval is as fitted.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from lmexp.analysis.quantiles import student
from lmexp.analysis.scaling import branches, holdout
from lmexp.analysis.scaling.fit import fit_law, held_out
from lmexp.analysis.scaling.lack_of_fit import distance, rate_of, reach_of
from lmexp.analysis.scaling.law_fit import LawFit
from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, Law, chinchilla, law_named
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.readers import points_of_csv

STUDIES, NOISE = 40, 0.005
DESIGNS = {"12 runs": (4, 3), "24 runs": (6, 4), "50 runs": (10, 5)}
"""Sizes from 10M to 3B parameters, times ratios from 5 to 80 tokens per parameter."""
TRUTH = PUBLISHED_LAWS["epoch"].theta
REFITS = 200


@dataclasses.dataclass(frozen=True)
class Result:
    """What a hold-out gives."""

    off: np.ndarray
    """(m,) ln(predicted/measured)."""
    ratio: np.ndarray
    """(m,) ln(tokens/params)."""
    noise: float
    """Residual standard deviation of the fitted runs."""
    halves: dict[str, np.ndarray]
    """Way -> (m,) half its interval of ln(loss)."""


def split(points: Points, share: float = holdout.SHARE) -> tuple[Points, Points]:
    """Return the points without those with the most compute, and these. Points of their units are in neither."""
    cut = np.sort(points.flops)[-max(round(share * len(points)), 1)]
    held = points.flops >= cut
    return points.where(~np.isin(points.unit, points.unit[held])), points.where(held)


def result(points: Points, law: Law, share: float) -> Result | None:
    """Return the errors of a law on the largest runs with each way's intervals; None if it cannot be fitted."""
    rest, test = split(points, share)
    fitted = fit_law(rest, law, None, REFITS, 0)
    if not isinstance(fitted, LawFit):
        return None
    value, _, high = fitted.prediction_of(test)
    bare = np.log(high / value)
    scatter = student(max(len(rest) - len(fitted.theta), 1)) * fitted.residual
    constants = np.sqrt(np.maximum(bare**2 - scatter**2, 0))
    halves = {"as fitted": bare, "factor": bare, "constant": bare, "added": bare, "square": bare}
    inner_rest, inner_test = split(rest)
    inner = fit_law(inner_rest, law, fitted.delta, REFITS, 0) if len(inner_rest) else None
    if isinstance(inner, LawFit):
        told, _, end = inner.prediction_of(inner_test)
        errors, allowed = np.log(told / inner_test.loss), np.log(end / told)
        away, far = (
            distance([to.column(name) for name in law.inputs], reach_of([of.column(name) for name in law.inputs]))
            for of, to in ((inner_rest, inner_test), (rest, test))
        )
        t = student(len(fitted.theta))
        same, linear, square = (rate_of(errors, allowed, away**power) for power in (0, 1, 2))
        halves |= {
            "factor": bare * max(float(np.quantile(np.abs(errors) / allowed, 0.95)), 1.0),
            "constant": np.hypot(np.maximum(constants, t * same), scatter),
            "added": np.sqrt(constants**2 + (t * linear * far) ** 2 + scatter**2),
            "square": np.hypot(np.maximum(constants, t * square * far**2), scatter),
        }
    value, _, high = held_out(fitted, rest).prediction_of(test)
    halves["lmexp"] = np.log(high / value)
    return Result(np.log(value / test.loss), np.log(test.tokens / test.params), fitted.residual, halves)


def told(results: list[Result]) -> str:
    """Return how many runs each way holds, and how wide it is."""
    parts = []
    for way in results[0].halves:
        inside = np.concatenate([abs(each.off) <= each.halves[way] for each in results])
        wider = np.median(np.concatenate([each.halves[way] / each.halves["as fitted"] for each in results]))
        parts.append(f"{way} {inside.mean():.0%}" + (f" (x{wider:.2f})" if way != "as fitted" else ""))
    return ", ".join(parts)


def of_table(points: Points, laws: list[Law], share: float) -> None:
    """Print the coverage on a table of runs."""
    for law in laws:
        if (found := result(points, law, share)) is None:
            print(f"{law.name}: cannot be fitted without the largest runs")
            continue
        related = np.corrcoef(found.off, found.ratio)[0, 1] if len(found.off) > 2 else np.nan
        print(
            f"{law.name}, {len(found.off)} held out: root mean square error {np.sqrt(np.mean(found.off**2)):.4f} of "
            f"ln(loss), residuals of the fitted runs {found.noise:.4f}, mean error {found.off.mean():+.4f}, "
            f"correlation with ln(tokens/params) {related:+.2f}\n    {told([found])}"
        )


def of_simulations() -> None:
    """Print the coverage in studies in which the law holds."""
    for design, (sizes, ratios) in DESIGNS.items():
        results = []
        for seed in range(STUDIES):
            draws = np.random.default_rng(seed)
            params, ratio = (
                each.ravel() for each in np.meshgrid(np.geomspace(1e7, 3e9, sizes), np.geomspace(5, 80, ratios))
            )
            tokens = params * ratio
            loss = chinchilla.loss(TRUTH, params, tokens) * np.exp(NOISE * draws.standard_normal(len(params)))
            points = Points(params, tokens, 6 * params * tokens, loss, np.arange(len(loss)).astype(str))
            found = result(points, chinchilla, holdout.SHARE)
            results += [] if found is None else [found]
        mean = np.mean([np.median(each.halves["lmexp"] / each.halves["as fitted"]) for each in results])
        widened = np.mean([(each.halves["lmexp"] > 1.001 * each.halves["as fitted"]).any() for each in results])
        print(
            f"{len(results)} simulated studies of {design}: {told(results)}\n    lmexp widens {widened:.0%} of the "
            f"studies; the mean over all of them is x{mean:.2f}"
        )


def main() -> None:
    """Read the options and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path)
    for name in ("loss", "unit", "where"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--law", default="chinchilla,extra,kaplan,overtraining")
    parser.add_argument("--share", type=float, default=holdout.SHARE)
    parser.add_argument("--in-units", action="store_true", help="test rows of one size for shared noise, as lmexp fit")
    chosen = parser.parse_args()
    with np.errstate(all="ignore"):
        if chosen.file is None:
            of_simulations()
            return
        columns = {name: value for name in ("loss", "unit") if (value := getattr(chosen, name))}
        laws = [law_named(name) for name in chosen.law.split(",")]
        points = points_of_csv(chosen.file, columns, None, chosen.where, flops_alone=not laws[0].has_optimum)
        of_table(branches.in_units(points) if chosen.in_units else points, laws, chosen.share)


if __name__ == "__main__":
    main()
