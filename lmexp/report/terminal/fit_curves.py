"""A fit of loss curves as text: the law, and how well it predicts other schedules."""

from lmexp.analysis.scaling.multipower import FORMULA, NAME, CurveFit, Tested
from lmexp.analysis.scaling.words import estimate_text, loss_text, number
from lmexp.report.terminal.fit import LAWS, FitText, Rows
from lmexp.units import printable, si

SCHEDULES = ("schedule", "final loss", "measured", "mean error", "worst", "R2")


def curves_text(fit: CurveFit, tested: tuple[Tested, ...]) -> FitText:
    """Return what a fit of loss curves says."""
    about = [
        f"{printable(curve.name)}: {int(curve.fitted.sum())} losses from step {si(curve.step[curve.fitted][0])} to "
        f"{si(curve.step[-1])}, learning rate {curve.lr.max():.3g} to {curve.lr[-1]:.3g}."
        for curve in fit.curves
    ]
    headline = [f"{NAME} fits these curves {fit.residual:.2%} off, root mean square."]
    for each in tested:
        said = f"{printable(each.name)}: a final loss of {estimate_text(each.final, loss_text)}"
        headline.append(f"{said}; measured {loss_text(each.measured)}." if each.measured else f"{said}.")
    tables: list[tuple[str, tuple[str, ...], Rows]] = [("Law", LAWS, _law_rows(fit))]
    if tested:
        tables.append(("Predicted schedules", SCHEDULES, _tested_rows(tested)))
    return FitText(about, headline, tables, [f"{NAME}: {FORMULA}", *fit.warnings])


def _law_rows(fit: CurveFit) -> Rows:
    rows: Rows = []
    for i, (name, value) in enumerate(fit.theta.items()):
        low, high = fit.intervals[name]
        interval = "at its bound, not identified" if name in fit.at_bound else f"{number(low)} to {number(high)}"
        rows.append((NAME if i == 0 else "", name, number(value), interval))
    return rows


def _tested_rows(tested: tuple[Tested, ...]) -> Rows:
    rows: Rows = []
    for each in tested:
        cells: tuple[str, ...] = ("–", "–", "–", "–")
        if each.measured is not None and each.mean_absolute_error is not None and each.worst_error is not None:
            errors = f"{each.mean_absolute_error:.2%}", f"{each.worst_error:.2%}"
            cells = (loss_text(each.measured), *errors, f"{each.r_squared:.4f}")
        rows.append((printable(each.name), estimate_text(each.final, loss_text), *cells))
    return rows
