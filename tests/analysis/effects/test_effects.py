"""An effect has the interval and the p value of a paired t test whose scatter is pooled within cells."""

import math

import numpy as np
import pytest
from scipy import stats

from lmexp.analysis.effects.effects import Effect, all_effects, effects_by_quality, paired_noise
from lmexp.analysis.effects.noise import Noise
from lmexp.analysis.effects.pairing import RunPairs
from tests.analysis.effects.test_pairing import PRECISIONS, study_of


def effect_of(changes: list[float], cells: list[int], adjusted: float | None = None) -> Effect:
    runs = tuple(map(str, range(len(changes))))
    return Effect(RunPairs("precision", "fp32", "bf16", runs, runs, tuple(cells)), tuple(changes), None, None, adjusted)


def test_without_two_cells_it_is_scipys_paired_t_test():
    changes = [0.01, 0.03, -0.01, 0.02]
    effect = effect_of(changes, [0, 0, 0, 0])
    expected = stats.ttest_1samp(changes, 0)
    low, high = expected.confidence_interval()
    assert effect.p == pytest.approx(expected.pvalue)
    assert (effect.mean - effect.half, effect.mean + effect.half) == pytest.approx((low, high))


def test_a_difference_between_cells_is_no_scatter():
    near, far = [0.010, 0.012], [0.110, 0.112]
    effect = effect_of([*near, *far], [0, 0, 1, 1])
    assert effect.noise.sd == pytest.approx(math.sqrt(2) * 0.001) and effect.noise.df == 2
    assert effect.half == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(2) * 0.001 / 2)


def test_without_repeated_seeds_the_cells_themselves_are_the_scatter():
    changes = [0.01, 0.03, 0.02]
    effect = effect_of(changes, [0, 1, 2])
    assert effect.noise is None and effect.scatter == (pytest.approx(np.std(changes, ddof=1)), 2)
    assert effect.is_within_noise is None, "seeds say nothing here"


def test_one_pair_has_no_interval():
    effect = effect_of([0.01], [0])
    assert (effect.scatter, effect.half, effect.p) == (None, None, None)


@pytest.mark.parametrize(("adjusted", "within"), [(0.04, False), (0.06, True), (None, None)])
def test_noise_is_judged_by_the_adjusted_p_value(adjusted, within):
    assert effect_of([0.01, 0.02], [0, 0], adjusted).is_within_noise is within


def test_equal_seeds_say_nothing_of_noise():
    assert effect_of([0.01, 0.01], [0, 0], 0.0).is_within_noise is None


def three_precisions():
    """Two seeds each; the second seed moves the arms differently."""
    losses = {"fp32": (3.00, 3.10), "bf16": (3.01, 3.12), "fp16": (3.50, 3.58)}
    rows = [{"precision": p, "seed": s, "loss": loss, "train_seconds": 1.0 + s} for p, ls in losses.items()
            for s, loss in enumerate(ls)]  # fmt: skip
    return study_of(rows, {"precision": [*PRECISIONS, "fp16"], "seed": [0, 1]})


def test_p_values_are_adjusted_over_all_effects_of_the_study():
    first, second = all_effects(three_precisions(), "loss", "train_seconds")["precision"]
    assert first.adjusted == pytest.approx(max(first.p, 2 * second.p)) and second.adjusted == pytest.approx(
        2 * second.p
    )


def test_a_quality_that_some_runs_lack_is_read_from_the_others():
    accuracies = {"fp32": None, "bf16": 0.5, "fp16": 0.25}
    rows = [{"precision": precision, "accuracy": accuracy} for precision, accuracy in accuracies.items()]
    study = study_of(rows, {"precision": [*accuracies]})
    by_quality = effects_by_quality(study, ["loss", "accuracy"], "train_seconds")
    assert [effect.value for effect in by_quality["loss"]["precision"]] == ["bf16", "fp16"]
    (effect,) = by_quality["accuracy"]["precision"]
    assert (effect.base, effect.value, effect.mean) == ("bf16", "fp16", -0.25)


def test_paired_noise_has_no_more_degrees_of_freedom_than_the_seeds():
    effects = all_effects(three_precisions(), "loss", "train_seconds")
    noise = paired_noise(effects, Noise(sd=0.07, low=0.0, high=1.0, cells=3, df=1))
    assert noise is not None and noise.df == 1
    assert noise.sd == pytest.approx(math.sqrt((0.01**2 / 2 + 0.02**2 / 2) / 2))
