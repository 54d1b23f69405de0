"""A law that a user writes: the optimum that others find, exact derivatives, and what is refused, with its place."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import curve_fit

import lmexp
from lmexp.analysis.scaling import solver
from lmexp.analysis.scaling.answers import answer
from lmexp.analysis.scaling.fit import fit, fit_law
from lmexp.analysis.scaling.law_fit import LawFit
from lmexp.analysis.scaling.laws import Law, chinchilla, kaplan
from lmexp.analysis.scaling.own_law import Bounds, bounds_of, own_law, surface_of
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.readers import points_of_frame
from lmexp.errors import UserError
from lmexp.report.export.fit_document import fit_document
from lmexp.report.export.fit_latex import fit_latex
from lmexp.report.page.fit import _question
from lmexp.report.terminal.fit import fit_text
from tests.analysis.scaling.designs import grid

PUBLIC = Path(__file__).parents[4] / "shared/data/chinchilla_points.csv"
NOISY = grid(noise=0.005)
CHINCHILLA = "loss = E + A*params^-alpha + B*tokens^-beta"
KAPLAN = "loss = ((Nc/params)^(alpha_N/alpha_D) + Dc/tokens)^alpha_D"


def with_epochs(noise: float = 0.003) -> pd.DataFrame:
    """Return 40 runs whose tokens help less, the more often they are repeated; epochs do not follow from the rest."""
    draws = np.random.default_rng(3)
    params, tokens = np.exp(draws.uniform(np.log(1e7), np.log(1e9), 40)), np.exp(draws.uniform(19, 24, 40))
    epochs = draws.uniform(1, 8, 40)
    loss = 1.7 + 300 * params**-0.33 + 900 * tokens**-0.36 * np.exp(-epochs / 5)
    noisy = loss * np.exp(noise * draws.standard_normal(40))
    return pd.DataFrame({"N": params, "D": tokens, "val_loss": noisy, "epochs": epochs})


OWN = "mine: loss = E + A*N^-alpha + B*tokens^-beta*exp(-epochs/gamma)"
EPOCHS = points_of_frame(with_epochs(), expressions=[OWN])


def optimum(points: Points, law: Law, delta: float | None) -> tuple[dict[str, float], float]:
    surface = surface_of(law, points)
    found, _ = solver.solve(surface, np.ones(len(points)), delta)
    return dict(zip(law.parameters, surface.theta(found.parameters[:1])[0], strict=True)), float(found.objective[0])


def test_the_optimum_on_chinchillas_points_is_that_of_the_built_in_law():
    if not PUBLIC.exists():
        pytest.skip("the public points of Chinchilla are not here")
    params, tokens, flops, loss = np.loadtxt(PUBLIC, delimiter=",", skiprows=1).T
    points = Points(params, tokens, flops, loss, np.arange(len(loss)).astype(str))
    theta, objective = optimum(points, own_law(CHINCHILLA, points), 1e-3)
    assert objective == pytest.approx(0.00084009, rel=1e-5)
    published = {"E": 1.78389, "A": 442.16, "B": 1271.8, "alpha": 0.342626, "beta": 0.342002}
    assert theta == pytest.approx(published, rel=2e-5)


@pytest.mark.parametrize(("text", "law"), [(CHINCHILLA, chinchilla), (KAPLAN, kaplan)])
def test_a_built_in_law_that_is_written_out_has_the_same_optimum(text: str, law: Law):
    ours, objective = optimum(NOISY, own_law(text, NOISY), 1e-3)
    theirs, least = optimum(NOISY, law, 1e-3)
    assert objective == pytest.approx(least, rel=1e-9)
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_least_squares_of_an_arbitrary_law_are_those_of_curve_fit():
    def law(columns: np.ndarray, e: float, a: float, alpha: float, b: float, beta: float, gamma: float) -> np.ndarray:
        n, d, epochs = columns
        return np.log(e + a * (n / 1e8) ** -alpha + b * (d / 1e9) ** -beta * np.exp(-epochs / gamma))

    columns = np.stack([EPOCHS.params, EPOCHS.tokens, EPOCHS.others["epochs"]])
    start = [1.5, 0.7, 0.3, 0.5, 0.3, 4.0]
    theirs, _ = curve_fit(law, columns, np.log(EPOCHS.loss), start, xtol=1e-15, ftol=1e-15, gtol=1e-15, maxfev=9999)
    ours, objective = optimum(EPOCHS, own_law(OWN, EPOCHS), 1e9)
    off = np.log(EPOCHS.loss) - law(columns, *theirs)
    assert objective == pytest.approx((off**2).sum() / 2, rel=1e-8)
    assert [ours[name] for name in ("E", "alpha", "beta", "gamma")] == pytest.approx(theirs[[0, 2, 4, 5]], rel=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "loss = E + A*params^-alpha + B*tokens^-beta*exp(-log(tokens)/g)",
        "loss = E + sqrt(a)*tanh(log10(params)/k) + (b/tokens)^c",
        "loss = (a + b*log2(params) - log(c)/tokens^d)^(e/f)",
        "loss = a^log(b*params) + 2^-c + +d*-(-e)",
    ],
)
@pytest.mark.parametrize("delta", [1e-2, 1e9])
def test_gradient_and_hessian_are_those_of_finite_differences(text: str, delta: float):
    surface = surface_of(own_law(text, NOISY), NOISY)
    at, weights = np.full((1, len(surface.names)), 0.3), np.ones((1, len(NOISY)))
    at[0, ::2] = 0.5
    _, gradient, hessian = surface.derivatives(at, weights, delta)
    steps = 1e-5 * np.eye(at.shape[1])
    values = [surface.objective(at + sign * steps, weights, delta) for sign in (1, -1)]
    slopes = [surface.derivatives(at + sign * steps, weights, delta)[1] for sign in (1, -1)]
    assert np.isfinite(values).all()
    assert gradient[0] == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-7 * np.abs(gradient).max())
    expected = (slopes[0] - slopes[1]) / 2e-5
    assert hessian[0] == pytest.approx(expected, rel=1e-5, abs=1e-7 * np.abs(hessian).max())
    jacobian = surface.jacobian(at[0])
    moved = [surface.residual(at + sign * steps) for sign in (1, -1)]
    assert pytest.approx((moved[0] - moved[1]) / 2e-5, rel=1e-5, abs=1e-7 * np.abs(jacobian).max()) == jacobian.T


def test_a_parameter_of_any_sign_is_found_below_0():
    found = fit_law(NOISY, own_law("loss = c + d*log(params)", NOISY, parameters={"d": Bounds(-np.inf)}), 1e9, 100)
    assert isinstance(found, LawFit)
    theirs, _ = curve_fit(lambda n, c, d: np.log(c + d * np.log(n)), NOISY.params, np.log(NOISY.loss), [5.0, -0.1])
    assert list(found.theta.values()) == pytest.approx(theirs, rel=1e-5)
    assert found.theta["d"] < 0 and found.intervals["d"][0] < found.theta["d"] < found.intervals["d"][1]


def test_a_parameter_is_fixed_or_kept_within_its_bounds():
    found = fit(NOISY, [CHINCHILLA], bootstraps=100, parameters=["alpha=0.3", "beta=0.2:0.25", "A=1:500:9999"]).laws[
        "own"
    ]
    assert found.fixed == ("alpha",) and found.theta["alpha"] == pytest.approx(0.3, rel=1e-12)
    assert found.at_bound == ("beta",) and found.theta["beta"] == pytest.approx(0.25, rel=1e-12)
    assert found.intervals["beta"] == (0.2, 0.25)
    assert any("beta of own is at its bound, 0.25, the greatest" in said for said in found.warnings)
    known = fit(NOISY, [CHINCHILLA], bootstraps=100, irreducible=1.8).laws["own"]
    assert known.theta["E"] == 1.8 and known.intervals["E"] == (1.8, 1.8)


def test_an_added_parameter_ends_at_0_unless_any_sign_is_allowed():
    noise = np.exp(0.003 * np.random.default_rng(0).standard_normal(len(NOISY)))
    points = replace(NOISY, loss=(30 * NOISY.params**-0.1 - 0.3) * noise)
    text = "loss = E + A*params^-alpha"
    kept = fit(points, [text], bootstraps=100).laws["own"]
    assert kept.theta["E"] == 0 and kept.at_bound == ("E",)
    assert fit(points, [text], bootstraps=100, parameters=["E=:"]).laws["own"].theta["E"] < 0


@pytest.mark.parametrize(
    ("text", "bounds"),
    [("a=2", Bounds(2, 2)), ("a=1:3", Bounds(1, 3)), ("a=:", Bounds(-np.inf)), ("a=-2:", Bounds(-2)),
     ("a=:0.5:", Bounds(-np.inf, np.inf, 0.5))],
)  # fmt: skip
def test_bounds_are_read(text: str, bounds: Bounds):
    assert bounds_of(text) == ("a", bounds)


@pytest.mark.parametrize("text", ["a", "a=", "=1", "a=x", "a=2:1", "a=1:5:2", "a=nan", "a=1:2:3:4", "a=inf:", ""])
def test_bounds_that_are_none_are_refused(text: str):
    with pytest.raises(UserError, match="give NAME=VALUE"):
        bounds_of(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("loss = E + A*(params^-alpha", r"at '\(params\^-alpha' \(character 14\): this parenthesis is not closed"),
        ("loss = E + A*params)^-alpha", r"at '\)\^-alpha' \(character 20\): this parenthesis closes none"),
        ("loss = E + exq(params)", r"at 'exq\(params\)' \(character 12\): there is no function 'exq'.*mean 'exp'"),
        ("loss = E + log(params, 2)", r"character 12\): write log\(x\)"),
        ("loss = E + A*parms^-alpha", "character 14.*no column 'parms'. Did you mean 'params'.*--parameter parms=0:"),
        ("loss = E + A*epohcs", "no column 'epohcs'. Did you mean 'epochs'"),
        ("loss = E + A*params = 2", r"'= 2' \(character 21\): a law has one equals sign"),
        ("loss = params", "no parameter to fit"),
        ("loss = E", "names no column"),
        ("loss = E + loss", r"\(character 12\): the loss is what the law predicts"),
        ("perplexity = E*params", "on the left of = stands loss"),
        ("loss = E + exp", r"write exp\(x\)"),
        ("loss = E + __import__('os').system('id')*params", r"\(character 28\): this is not allowed here"),
        ("loss = E + params.__class__", "there is no column 'params.__class__'"),
        ("loss = E + [params for x in y][0]", "this is not allowed here"),
        ("loss = E + 1e999*params", "too large"),
        ("loss = E + A*log(epochs - 100)", "log.epochs - 100. is nan at line 1"),
        ("loss = -A*params", "own is -.* at line 1.*a loss is above 0"),
        ("loss = " + "+".join(f"a{i}*params^{i}" for i in range(30)), "30 parameters; allowed are 20"),
        ("loss = E*" + "(" * 50 + "params", "nested too deeply"),
        ("chinchilla: loss = E + A/params", "two laws are called chinchilla"),
    ],
)  # fmt: skip
def test_a_law_that_cannot_be_fitted_is_one_message_with_its_place(text: str, reason: str):
    points = points_of_frame(with_epochs().assign(**{"A/params": 1.0}), expressions=[OWN])
    with pytest.raises(UserError, match=reason) as refused:
        fit(points, [text], bootstraps=100)
    assert len(str(refused.value)) < 300


def test_parameters_that_change_together_are_named():
    (reason,) = fit(NOISY, ["loss = E + A*B*params^-alpha + C*tokens^-0.36"], bootstraps=100).refusals["own"]
    assert "A and B can change together" in reason


def test_a_law_with_as_many_parameters_as_points_is_refused():
    few = NOISY.where(np.arange(24) < 6)
    (reason,) = fit(few, [CHINCHILLA], bootstraps=100).refusals["own"]
    assert "own has 5 numbers to find, and 6 independent units are too few" in reason


def test_bounds_of_a_parameter_that_no_law_has_are_refused():
    with pytest.raises(UserError, match=r"no law has a parameter 'alpga'. Did you mean 'alpha'"):
        fit(NOISY, [CHINCHILLA], bootstraps=100, parameters=["alpga=1"])


def test_rows_without_a_number_are_left_out_of_that_law_alone_and_said():
    table = with_epochs()
    table.loc[:2, "epochs"] = np.nan
    found = fit(points_of_frame(table, expressions=[OWN]), [OWN, "overtraining"], bootstraps=100)
    assert (found.laws["mine"].n_points, found.laws["overtraining"].n_points) == (37, 40)
    assert "mine: 3 of 40 rows lack a number in one of its columns." in found.laws["mine"].warnings


def test_a_tables_own_names_and_factors_are_those_of_its_columns():
    table = with_epochs()
    plain = own_law(OWN, EPOCHS)
    assert plain.inputs == ("params", "tokens", "epochs")
    millions = points_of_frame(table.assign(N=table.N / 1e6), scale={"params": 1e6}, expressions=[OWN])
    assert optimum(millions, plain, 1e-3)[0] == pytest.approx(optimum(EPOCHS, plain, 1e-3)[0], rel=1e-6)


def test_flops_alone_are_enough_for_a_law_that_names_no_more():
    table = pd.DataFrame({"flops": NOISY.flops, "loss": NOISY.loss})
    text = "loss = E + A*flops^-alpha"
    found = answer(points_of_frame(table, flops_alone=True, expressions=[text]), bootstraps=100, laws=[text])
    assert found.trusted.law.name == "own" and not found.best
    assert fit_text(found).tables


def test_an_own_law_stands_beside_the_others_in_every_output():
    run = {"params": 1e9, "tokens": 1e10, "epochs": 2.0}
    found = answer(EPOCHS, bootstraps=100, laws=["overtraining", OWN], runs=[run])
    by = {row.by: row.loss for row in found.predicted}
    truth = 1.7 + 300 * 1e9**-0.33 + 900 * 1e10**-0.36 * np.exp(-2 / 5)
    assert by["mine"].low < truth < by["mine"].high and set(by) == {"mine", "overtraining"}
    text, document = fit_text(found), fit_document(found)
    rows = [row for row in text.tables[0][2] if row[0] == "mine"]
    assert rows[0][:2] == ("mine", "E")
    assert "mine: loss = E + A*N^-alpha + B*tokens^-beta*exp(-epochs/gamma)" in text.notes
    assert document["laws"]["mine"]["expression"].startswith("loss = E") and document["trusted"] == "mine"
    assert document["laws"]["mine"]["holdout"]["mean_absolute_error"] < 0.01
    assert any("by overtraining" in said for said in text.headline)  # mine has no best size
    assert r"mine & $E$" in fit_latex(found) and r"$\gamma$" in fit_latex(found)
    other = answer(EPOCHS, bootstraps=100, laws=["overtraining", OWN + "*1"], runs=[run])
    assert _question(fit_document(other)) != _question(document)
    with pytest.raises(UserError, match="add epochs="):
        answer(EPOCHS, bootstraps=100, laws=[OWN], runs=[{"params": 1e9, "tokens": 1e10}])


def test_weights_count_in_an_own_law():
    weights = np.random.default_rng(1).integers(1, 4, len(NOISY))
    rows = np.repeat(np.arange(len(NOISY)), weights)
    copies = Points(*(column[rows] for column in (NOISY.params, NOISY.tokens, NOISY.flops, NOISY.loss, NOISY.unit)))
    weighted = fit(replace(NOISY, weights=weights.astype(float)), [CHINCHILLA], 1e-3, 100).laws["own"]
    assert weighted.theta == pytest.approx(fit(copies, [CHINCHILLA], 1e-3, 100).laws["own"].theta, rel=1e-5)


def test_python_takes_laws_as_the_command_does():
    found = lmexp.fit(with_epochs(), laws=[OWN], bootstraps=100, parameters=["gamma=1:20"])
    assert 1 < found.laws["mine"].theta["gamma"] < 20
