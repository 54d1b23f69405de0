"""Seeds that are added after looks at the results: the level, and what follows from the intervals."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from lmexp.analysis.effects.looks import START, level_of_look, look_in_words, looks
from lmexp.runs.manifest import LookRule


def rule(difference: float = 1.0, cap: int = 6) -> LookRule:
    return LookRule(quality="loss", difference=difference, cap=cap)


def arms(values: np.ndarray) -> dict[str, dict[int, float | None]]:
    return {f"arm {number}": dict(enumerate(map(float, row))) for number, row in enumerate(values)}


def share_wrong(n_arms: int, sweeps: int) -> float:
    """The share of sweeps of equal arms in which some arm is called worse; half of the variance is shared by seeds."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(sweeps):
        values = rng.normal(size=(1, 6)) + rng.normal(size=(n_arms, 6))
        wrong += any(look.worse for look in looks(arms(values), rule(), higher=False))
    return wrong / sweeps


@pytest.mark.parametrize("cap", [4, 10, 50])
def test_the_looks_spend_five_percent_together(cap: int):
    assert math.isclose(sum(level_of_look(n, cap) for n in range(START, cap + 1)), 0.05)


@pytest.mark.parametrize("n_arms", [2, 4, 8])
def test_equal_arms_are_seldom_told_apart(n_arms: int):
    assert share_wrong(n_arms, 200) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 200)


@pytest.mark.long
@pytest.mark.parametrize("n_arms", [2, 4, 8])
def test_equal_arms_are_told_apart_in_at_most_five_percent_of_many_sweeps(n_arms: int):
    assert share_wrong(n_arms, 10_000) <= 0.05


def test_an_interval_is_that_of_the_paired_t_test_at_the_level_of_the_look():
    values = np.random.default_rng(1).normal(size=(2, 6))
    *_, last = looks(arms(values), rule(1e-9), higher=False)
    (gap,) = last.tied
    best, other = sorted(values, key=np.mean)
    interval = ttest_rel(other, best).confidence_interval(1 - level_of_look(6, 6))
    assert (gap.low, gap.high) == pytest.approx((interval.low, interval.high))


def test_an_arm_that_is_worse_gets_no_more_seeds_and_close_ones_do():
    shape = np.random.default_rng(2).normal(size=6)
    values = np.stack([shape, shape + 0.1 * shape[::-1], shape + 100 + 0.01 * shape[::-1]])
    first, *_ = looks(arms(values[:, :3]), rule(0.001), higher=False)
    assert [gap.arm for gap in first.worse] == ["arm 2"]
    assert set(first.arms) == {"arm 0", "arm 1"}
    assert not first.is_last


def test_it_ends_as_soon_as_the_difference_is_ruled_out():
    shape = np.random.default_rng(3).normal(size=6)
    made = looks(arms(np.stack([shape, shape + 0.001 * shape[::-1]])), rule(1.0), higher=False)
    assert [look.seeds for look in made] == [3]
    assert made[0].ruled_out


def test_a_look_waits_for_every_arm_and_a_run_without_a_result_counts_as_ended():
    two: dict[str, dict[int, float | None]] = {"a": {0: 1.0, 1: 2.0, 2: 1.5}, "b": {0: 1.1, 1: 2.3}}
    assert looks(two, rule(), higher=False) == []
    two["b"][2] = None
    (look,) = looks(two, rule(1e-9), higher=False)
    assert look.seeds == 3


def test_the_looks_do_not_change_as_more_seeds_come_in():
    values = np.random.default_rng(4).normal(size=(3, 6))
    few, all_of_them = (looks(arms(values[:, :n]), rule(1e-9), higher=True) for n in (4, 6))
    assert all_of_them[: len(few)] == few


def test_where_more_is_better_the_best_arm_has_the_highest_mean():
    shape = np.random.default_rng(5).normal(size=3)
    (look,) = looks(arms(np.stack([shape, shape + 5 + 0.01 * shape[::-1]])), rule(), higher=True)
    assert look.best == "arm 1" and [gap.arm for gap in look.worse] == ["arm 0"]
    assert look.worse[0].mean == pytest.approx(5, abs=0.1)


def test_a_difference_is_ruled_out_only_if_neither_arm_may_be_ahead_by_it():
    shape = np.random.default_rng(6).normal(size=3)
    pair = arms(np.stack([shape, shape + 0.3 + 0.5 * shape[::-1]]))
    pair["arm 1"][0] = None
    for results in (pair, {"arm 0": {0: -9.0, 1: 1.0, 2: 2.0}, "arm 1": {0: None, 1: 0.5, 2: 1.6}}):
        (look,) = looks(results, rule(1e-9), higher=False)
        (gap,) = look.tied
        ends = sorted([-gap.low, gap.high])
        assert not look.ruled_out and 0 < ends[0] < ends[1]
        for difference, is_out in ((sum(ends) / 2, False), (ends[1] * 1.01, True)):
            (look,) = looks(results, rule(difference), higher=False)
            assert (look.ruled_out, look.is_last) == (is_out, is_out)


def test_the_look_at_the_cap_is_the_last_and_rules_nothing_out():
    values = np.random.default_rng(7).normal(size=(2, 4))
    made = looks(arms(values), rule(1e-9, cap=4), higher=False)
    assert [(look.seeds, look.ruled_out, look.is_last) for look in made] == [(3, False, False), (4, False, True)]


def test_the_next_look_does_not_wait_for_an_arm_that_is_out():
    shape = np.random.default_rng(2).normal(size=4)
    results = arms(np.stack([shape, shape + 0.1 * shape[::-1], shape + 100 + 0.01 * shape[::-1]]))
    del results["arm 2"][3]
    first, second = looks(results, rule(0.001), higher=False)
    assert [gap.arm for gap in first.worse] == ["arm 2"] and second.seeds == 4 and not second.worse


def test_an_arm_with_one_result_is_lost_however_good_it_is():
    results = {"one": {0: -50.0, 1: None, 2: None}, "a": {0: 1.0, 1: 2.0, 2: 1.5}, "b": {0: 1.2, 1: 2.1, 2: 1.4}}
    (look,) = looks(results, rule(1e-9), higher=False)
    assert look.lost == ("one",) and "one" not in look.arms and look.best == "a"


def test_a_look_says_why_seeds_follow_or_not():
    values = np.random.default_rng(7).normal(size=(2, 4))
    first, last = (look_in_words(look, rule(1e-9, 4)) for look in looks(arms(values), rule(1e-9, 4), higher=False))
    assert first.endswith("2 arms get another seed.")
    assert last.endswith("The cap of 4 seeds is reached, and a difference of 1e-09 is not ruled out.")
    (look,) = looks(arms(values[:, :3]), rule(100), higher=False)
    assert "A difference of 100 or more is ruled out between it and the arms that are left." in look_in_words(
        look, rule(100)
    )
