"""The intervals of speedups hold the truth as often as they say, in simulated studies with a known speedup."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom

from lmexp.analysis.table import Study
from tests.analysis.versus.simulated import budgets_study, compared, milestones_study

TRUTH = 1.3
BUDGETS = np.geomspace(1e15, 1e18, 6)
OTHERS = (3e15, 2e16, 2e17)
DESIGNS: dict[str, Callable[[np.random.Generator], Study]] = {
    "milestones, 2 sizes of 3 seeds": lambda draw: milestones_study(TRUTH, 3, 0.002, 0.002, draw),
    "pairs, 6 budgets of 3 seeds": lambda draw: budgets_study(TRUTH, BUDGETS, 3, 0.002, 0.002, random=draw),
    "pairs, 6 budgets of 1 seed": lambda draw: budgets_study(TRUTH, BUDGETS, 1, 0.002, 0.002, random=draw),
    "no shared budget, 2 seeds": lambda draw: budgets_study(TRUTH, BUDGETS, 2, 0.002, arm_budgets=OTHERS, random=draw),
    "no shared budget, one run of the arm": lambda draw: budgets_study(
        TRUTH, np.geomspace(1e15, 1e18, 10), 1, 0.002, arm_budgets=OTHERS[-1:], random=draw
    ),
}


def coverage(design: str, studies: int) -> tuple[int, int, int, float]:
    """Return how often the overall interval and those of scales hold the truth, of how many, and the mean width."""
    held, of_scales, scales, widths = 0, 0, 0, []
    for number in range(studies):
        one = compared(DESIGNS[design](np.random.default_rng([number, 7])), costs=["flops"]).arms[0].costs["flops"]
        assert one.overall.low is not None and one.overall.high is not None
        held += one.overall.low <= TRUTH <= one.overall.high
        widths.append(np.log(one.overall.high / one.overall.low))
        for scale in one.scales:
            if scale.low is not None and scale.high is not None:
                of_scales += scale.low <= TRUTH <= scale.high
                scales += 1
    return held, of_scales, scales, float(np.mean(widths))


@pytest.mark.parametrize(("studies", "chance"), [
    pytest.param(30, 1e-4, marks=pytest.mark.slow),
    pytest.param(300, 1e-2, marks=pytest.mark.long),
])  # fmt: skip
@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_of_95_per_cent_hold_the_truth(design: str, studies: int, chance: float):
    held, of_scales, scales, width = coverage(design, studies)
    share = of_scales / max(scales, 1)
    print(f"{design}: {held / studies:.3f} overall, {share:.3f} of {scales} scales; width {width:.3f}")
    assert held >= binom.ppf(chance, studies, 0.93)
    assert of_scales >= 0.92 * scales or scales < 100
