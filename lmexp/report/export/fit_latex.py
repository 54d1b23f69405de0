"""A fit as a table for a paper: each law's numbers with their 95 % intervals, in LaTeX with booktabs."""

from lmexp.analysis.scaling.answers import Answer
from lmexp.analysis.scaling.relations.relation import Relation
from lmexp.analysis.scaling.words import number

HEADING = (
    r"\begin{tabular}{llrrl}",
    r"\toprule",
    r"law & & value & std.\ error & 95\,\% interval \\",
    r"\midrule",
)
SYMBOLS = {
    "kappa": r"$\kappa$",
    "E_0": "$E_0$",
    "E_1": "$E_1$",
    "L0": "$L_0$",
    "alpha": r"$\alpha$",
    "beta": r"$\beta$",
    "gamma": r"$\gamma$",
    "alpha_N": r"$\alpha_N$",
    "alpha_D": r"$\alpha_D$",
    "Nc": "$N_c$",
    "Dc": "$D_c$",
}


def fit_latex(answer: Answer) -> str:
    """Return the laws' parameters, standard errors and intervals, and the exponents of their optima, as LaTeX."""
    lines = [*HEADING]
    for name, law in answer.fit.laws.items():
        errors = law.standard_errors
        rows: list[tuple[str, float, float | None, tuple[float, float]]]
        rows = [(key, value, errors[key], law.intervals[key]) for key, value in law.theta.items()]
        if law.law.has_optimum:
            exponents = law.exponents(answer.price).items()
            rows += [(key, float(one.value), None, (float(one.low), float(one.high))) for key, one in exponents]
        for i, (key, value, error, (low, high)) in enumerate(rows):
            bound = key in law.at_bound
            interval = "not identified" if bound else f"{_number(low)} to {_number(high)}"
            if fixed := key in law.fixed:
                interval = "fixed"
            spread = "" if error is None or bound or fixed else _number(error)
            label = _text(name) if i == 0 else ""
            symbol = SYMBOLS.get(key, f"${key}$" if len(key) == 1 else _text(key))
            lines.append(f"{label} & {symbol} & {_number(value)} & {spread} & {interval} \\\\")
        lines.append(r"\midrule")
    return _table(lines)


def relation_latex(relation: Relation) -> str:
    """Return the numbers of a fitted relation with their intervals, as LaTeX."""
    lines = [*HEADING]
    for formula in relation.formulas:
        for i, (key, value) in enumerate(formula.theta.items()):
            low, high = formula.intervals[key]
            interval = "not identified" if key in formula.at_bound else f"{_number(low)} to {_number(high)}"
            label = _text(formula.name) if i == 0 else ""
            symbol = SYMBOLS.get(key, f"${key}$" if len(key.replace(" + ", "")) <= 2 else _text(key))
            lines.append(f"{label} & {symbol} & {_number(value)} & & {interval} \\\\")
        lines.append(r"\midrule")
    return _table(lines)


def _table(lines: list[str]) -> str:
    """Return the rows, whose last one is a line between laws, as a whole table."""
    return "\n".join([*lines[:-1], r"\bottomrule", r"\end{tabular}", ""])


def _number(value: float) -> str:
    """Return a number as LaTeX has it: `1.2e+09` is a power of ten."""
    mantissa, sign, exponent = number(value).partition("e")
    return rf"${mantissa} \times 10^{{{int(exponent)}}}$" if sign else mantissa.replace("inf", r"$\infty$")


def _text(name: str) -> str:
    return name.replace("_", r"\_")
