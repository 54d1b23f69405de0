"""The form's derivatives are those of finite differences, for every law and both kinds of precision."""

import numpy as np
import pytest

from lmexp.analysis.scaling.fit import effects_of
from lmexp.analysis.scaling.laws import (
    chinchilla,
    extra,
    kaplan,
    kaplan_tokens,
    optimizers,
    overtraining,
    power,
    repeated,
)
from lmexp.analysis.scaling.points import Points
from lmexp.analysis.scaling.surface import Surface

START = {"E": 1.6, "a": -0.4, "alpha": 0.3, "b": -0.7, "beta": 0.4, "g": -0.2}
START |= {"ln_gamma_bits": 1.0, "ln_R_D": 2.5, "ln_R_N": 1.5}


def points(precisions: list[str]) -> Points:
    draws = np.random.default_rng(3)
    params, tokens = np.exp(draws.uniform(16, 22, 40)), np.exp(draws.uniform(20, 25, 40))
    loss = (1.8 + 480 * params**-0.35 + 2000 * tokens**-0.37) * np.exp(0.03 * draws.standard_normal(40))
    precision = np.resize(precisions, 40)
    optimizer, unique = (
        np.resize(["adamw", "muon", "muon", "sgd", "adamw", "adamw"], 40),
        tokens / np.resize([1, 4, 30], 40),
    )
    units = np.arange(40).astype(str)
    return Points(params, tokens, 6 * params * tokens, loss, units, precision, optimizer, unique)


LAWS = [chinchilla, extra, kaplan, overtraining, repeated, optimizers, kaplan_tokens, power("flops")]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("precision", [["fp32"], ["fp32", "bf16", "fp8"], ["bf16", "int8", "int4", "int3"]])
def test_gradient_and_hessian_are_those_of_finite_differences(law, precision):
    runs = points(precision)
    effects = effects_of(law, runs)
    assert not isinstance(effects, str)
    surface = Surface.of(law, runs, effects)
    at = np.array([[START.get(name, -0.15) for name in surface.names]])
    if law.free[0] != "E":
        at[0, surface.names.index("a")] = 2.0
    weights = np.random.default_rng(4).exponential(size=(1, 40))
    delta = float(np.median(np.abs(surface.residual(at))))  # half of the points are on either side of the kink
    value, gradient, hessian = surface.derivatives(at, weights, delta)
    assert value == pytest.approx(surface.objective(at, weights, delta))
    for i, step in enumerate(1e-6 * np.eye(at.shape[1])):
        up, down = surface.derivatives(at + step, weights, delta), surface.derivatives(at - step, weights, delta)
        assert gradient[0, i] == pytest.approx((up[0] - down[0])[0] / 2e-6, rel=1e-6, abs=1e-8)
        np.testing.assert_allclose(hessian[0, i], (up[1] - down[1])[0] / 2e-6, rtol=1e-5, atol=1e-7)
        moved = (surface.residual(at + step) - surface.residual(at - step))[0] / 2e-6
        np.testing.assert_allclose(surface.jacobian(at[0])[:, i], moved, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("law", [chinchilla, extra, kaplan, overtraining], ids=lambda law: law.name)
def test_the_surface_is_the_law_at_its_own_parameters(law):
    runs = points(["fp32"])
    surface = Surface.of(law, runs)
    at = np.array([[START[name] for name in surface.names]])
    loss = law.loss(surface.theta(at), runs.params, runs.tokens)
    np.testing.assert_allclose(np.log(loss / runs.loss), surface.residual(at)[0], rtol=1e-9, atol=1e-12)
