"""A fit of the damage of rounding as text: the law, and the damage of the runs that were asked for."""

from collections.abc import Sequence

from lmexp.analysis.scaling.damage import FORMULA, NAME, DamageFit
from lmexp.analysis.scaling.law_fit import Estimate
from lmexp.analysis.scaling.words import estimate_text, number
from lmexp.report.terminal.fit import LAWS, FitText, Rows, about_points

PREDICTED = ("run", "rise of the loss")


def damage_text(fit: DamageFit, predicted: Sequence[tuple[str, Estimate]]) -> FitText:
    """Return what a fit of the damage says; `predicted` holds the words of each run and its damage."""
    headline = [f"{NAME} fits these points {fit.residual:.0%} off, root mean square."]
    if "gamma_D" in fit.theta:
        low, high = (number(end) for end in fit.intervals["gamma_D"])
        rise = 2 ** fit.theta["gamma_D"]
        headline.append(
            f"Twice the tokens multiply the damage by {rise:.2f}: gamma_D is {number(fit.theta['gamma_D'])} "
            f"({low} to {high})."
        )
    headline += [f"{words}: the loss rises by {estimate_text(damage, number)} nats." for words, damage in predicted]
    rows: Rows = []
    for i, (name, value) in enumerate(fit.theta.items()):
        low, high = (number(end) for end in fit.intervals[name])
        rows.append((NAME if i == 0 else "", name, number(value), f"{low} to {high}"))
    tables: list[tuple[str, tuple[str, ...], Rows]] = [("Law", LAWS, rows)]
    if predicted:
        tables.append(("Predicted runs", PREDICTED, [(words, estimate_text(of, number)) for words, of in predicted]))
    return FitText(about_points(fit.points), headline, tables, [f"{NAME}: {FORMULA}", *fit.warnings])
