"""Arms are ranked by their means, and an arm is a tie where a t test does not tell it from the best."""

import pytest
from scipy import stats

from lmexp.analysis.effects.ranking import ranking
from tests.analysis.effects.test_pairing import study_of


def ranked(losses: dict[str, list[float]], **columns):
    rows = [
        {"precision": arm, "seed": seed, "loss": loss, "train_seconds": 10.0 * (i + 1)}
        | {name: values[i] for name, values in columns.items()}
        for i, (arm, values_of_arm) in enumerate(losses.items())
        for seed, loss in enumerate(values_of_arm)
    ]
    axes = {"precision": [*losses], "seed": list(range(max(map(len, losses.values()))))}
    return ranking(study_of(rows, axes), "loss", "train_seconds")


def test_without_a_repeated_seed_nothing_is_ranked():
    assert ranked({"fp32": [3.0], "bf16": [3.1]}) is None


def test_the_lowest_mean_loss_comes_first_with_its_mean_cost():
    found = ranked({"fp32": [3.2, 3.3], "bf16": [3.0, 3.1]})
    assert [(arm.name, arm.quality.mean, arm.cost) for arm in found.arms] == [
        ("bf16", pytest.approx(3.05), 20.0),
        ("fp32", pytest.approx(3.25), 10.0),
    ]


def test_shared_seeds_are_compared_seed_by_seed():
    """Seeds move both arms by 1, their difference by 0.01: unpaired, nothing could be told apart."""
    fp32, bf16 = [3.0, 4.0, 5.0], [3.10, 4.11, 5.09]
    found = ranked({"fp32": fp32, "bf16": bf16})
    assert found.adjusted[0] == pytest.approx(stats.ttest_rel(fp32, bf16).pvalue) and found.ties == []


def test_an_arm_of_one_seed_is_judged_by_the_scatter_of_the_others():
    found = ranked({"fp32": [3.0, 3.2], "bf16": [3.15]})
    assert found.noise.df == 1 and [arm.name for arm in found.ties] == ["bf16"]


def test_a_cost_is_not_averaged_over_devices():
    rows = [{"precision": "fp32", "seed": s, "loss": 3.0 + s, "train_seconds": 1.0, "train_flops": 5.0,
             "device_name": f"gpu{s}"} for s in (0, 1)]  # fmt: skip
    study = study_of(rows, {"precision": ["fp32"], "seed": [0, 1]})
    assert ranking(study, "loss", "train_seconds").arms[0].cost is None
    assert ranking(study, "loss", "train_flops").arms[0].cost == 5.0
