"""How often 95 % intervals of a single run hold the loss of the largest runs, which the law was not fitted to.

    python benchmarks/coverage.py points.csv [--loss COLUMN] [--unit COLUMN] [--where EXPRESSION]
    python benchmarks/coverage.py            (simulated studies, in which Chinchilla's law holds exactly)

The fifth of the runs with the most compute is held out. For a table, the correlation of the errors with the logarithm
of tokens per parameter is shown, too: noise has none, and a law that does not fit has one.
"""

import argparse
from pathlib import Path

import numpy as np

from lmexp.analysis.scaling.fit import LawFit, fit_law
from lmexp.analysis.scaling.holdout import largest
from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, Law, chinchilla, extra
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.readers import points_of_csv

STUDIES, NOISE = 20, 0.005
TRUTH = PUBLISHED_LAWS["epoch"].theta


def errors(points: Points, law: Law) -> tuple[np.ndarray, np.ndarray, np.ndarray, float] | None:
    """Return ln(predicted/measured), half the interval and ln(tokens/params) of the held-out runs (m,), and the noise.

    The noise is the residual standard deviation of the fitted runs. None if the law cannot be fitted.
    """
    held = largest(points)
    rest, test = points.where(~np.isin(points.unit, points.unit[held])), points.where(held)
    fitted = fit_law(rest, law, None, 200, 0)
    if not isinstance(fitted, LawFit):
        return None
    value, _, high = fitted.prediction_of(test)
    return np.log(value / test.loss), np.log(high / value), np.log(test.tokens / test.params), fitted.residual


def of_table(points: Points) -> None:
    """Print the coverage on a table of runs."""
    for law in (chinchilla, extra):
        if (found := errors(points, law)) is None:
            print(f"{law.name}: cannot be fitted without the largest runs")
            continue
        off, half, ratio, noise = found
        print(
            f"{law.name}: {np.mean(abs(off) <= half):.0%} of {len(off)} held-out runs inside; their root mean square "
            f"error is {np.sqrt(np.mean(off**2)):.4f} of ln(loss), the residuals of the fitted runs {noise:.4f}; mean "
            f"error {off.mean():+.4f}; correlation with ln(tokens/params) {np.corrcoef(off, ratio)[0, 1]:+.2f}"
        )


def of_simulations() -> None:
    """Print the coverage in studies in which the law holds."""
    inside: list[bool] = []
    for seed in range(STUDIES):
        draws = np.random.default_rng(seed)
        params, ratio = (each.ravel() for each in np.meshgrid(np.geomspace(1e7, 3e9, 10), np.geomspace(5, 80, 5)))
        tokens = params * ratio
        loss = chinchilla.loss(TRUTH, params, tokens) * np.exp(NOISE * draws.standard_normal(len(params)))
        found = errors(Points(params, tokens, 6 * params * tokens, loss, np.arange(len(loss)).astype(str)), chinchilla)
        inside += [] if found is None else list(abs(found[0]) <= found[1])
    print(f"{STUDIES} simulated studies: {np.mean(inside):.1%} of {len(inside)} held-out runs inside")


def main() -> None:
    """Read the options and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path)
    for name in ("loss", "unit", "where"):
        parser.add_argument(f"--{name}")
    chosen = parser.parse_args()
    if chosen.file is None:
        of_simulations()
        return
    columns = {name: value for name in ("loss", "unit") if (value := getattr(chosen, name))}
    of_table(points_of_csv(chosen.file, columns, None, chosen.where))


if __name__ == "__main__":
    main()
