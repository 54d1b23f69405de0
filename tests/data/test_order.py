"""Which window is the i-th sample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lmexp.data.order import ByLength, Keyed, Order, Shuffled
from lmexp.errors import UserError

TEXTS = st.tuples(st.integers(1, 50), st.integers(1, 3000), st.integers(0, 2**32 - 1)).map(
    lambda t: Order(n_tokens=t[0] + t[1], context=t[0], seed=t[2])
)


@given(TEXTS, st.integers(0, 5))
def test_an_epoch_takes_every_window_once_without_overlap(order, epoch):
    n = order.size
    starts = np.sort(order.take(epoch * n, n))
    assert (np.diff(starts) == order.context).all()
    assert starts[0] >= 0
    assert starts[-1] + order.context < order.n_tokens


@given(TEXTS)
def test_an_epoch_leaves_less_than_two_windows_out(order):
    assert order.n_tokens - 1 - order.size * order.context < 2 * order.context


@given(TEXTS, st.integers(0, 200), st.lists(st.integers(0, 40), max_size=6))
def test_samples_do_not_depend_on_how_they_are_asked_for(order, first, counts):
    whole = order.take(first, sum(counts))
    fresh = Order(order.n_tokens, order.context, order.seed)
    parts, at = [np.empty(0, np.int64)], first + sum(counts)
    for count in reversed(counts):  # backwards, so that the cached epoch is of no help
        at -= count
        parts.insert(0, fresh.take(at, count))
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert whole.dtype == np.int64


def test_epochs_and_seeds_have_orders_and_offsets_of_their_own():
    order, other = Order(100_001, 100, seed=0), Order(100_001, 100, seed=1)
    epochs = [order.take(e * 999, 999) for e in range(20)] + [other.take(0, 999)]
    assert len({tuple(np.argsort(epoch)) for epoch in epochs}) == 21
    assert len({int(epoch.min()) for epoch in epochs}) > 10


def test_windows_are_shuffled_well():
    starts = Order(1_000_001, 100, seed=3).take(0, 9999)
    assert abs(np.corrcoef(starts, np.arange(9999))[0, 1]) < 0.05


def test_offsets_reach_every_phase_of_a_window():
    order = Order(401, 8, seed=0)
    offsets = {int(order.take(e * order.size, 49).min()) for e in range(200)}
    assert offsets == set(range(8))


def test_the_shortest_text_is_one_window():
    assert Order(9, 8, seed=0).take(0, 3).tolist() == [0, 0, 0]
    with pytest.raises(UserError, match="training text, which has 8 tokens: a window is context \\+ 1 = 9"):
        Order(8, 8, seed=0)


GOLDEN = [6, 76, 56, 46, 86, 16, 36, 66, 26, 8, 38, 88]

GOLDEN_LONG = [4182936976, 4057454480, 541056912, 4941180816, 4844831888]


def test_the_order_is_the_one_that_earlier_versions_gave():
    assert Order(101, 10, seed=7).take(0, 12).tolist() == GOLDEN


@given(st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=60), st.integers(1, 5), st.integers(0, 9))
def test_steps_by_length_hold_what_fits_and_an_epoch_each_example_once_but_for_less_than_a_step(parts, slots, seed):
    needed = np.array(parts)
    if len(parts) < slots:  # the worst case: all go one by one
        return
    try:
        order = ByLength(needed, slots, seed)
    except UserError:
        assert len(parts) < slots * max(parts)
        return
    for epoch in (0, 1):
        steps = [order.step(epoch * order.steps + i) for i in range(order.steps)]
        taken = np.concatenate([examples for _, examples in steps])
        assert len(np.unique(taken)) == len(taken) and len(parts) - len(taken) < slots
        assert all(len(examples) == slots * shared and (needed[examples] >= shared).all() for shared, examples in steps)
    again = ByLength(needed, slots, seed)
    assert (again.step(order.steps)[1] == order.step(order.steps)[1]).all(), "nothing depends on what was asked before"
    assert sum(order.counts().values()) == order.steps


@pytest.mark.parametrize("values", [2**64, 5])  # with few values there are many ties
def test_a_long_epoch_that_is_sorted_in_parts_has_the_order_of_all_at_once(values, monkeypatch):
    monkeypatch.setattr("lmexp.data.order._BUCKET", 64)
    numbers = np.random.PCG64(1).random_raw(5000)
    if values < 2**64:
        numbers = numbers % np.uint64(values) << np.uint64(60)
    whole = np.argsort(numbers, kind="stable")
    shuffled = Shuffled(numbers)
    assert (shuffled.take(0, 5000) == whole).all()
    assert all((shuffled.take(at, at + 130) == whole[at : at + 130]).all() for at in (4990, 0, 63, 4000, 130))
    assert len(shuffled._sorted) < 2000  # not all of them


def keyed(size: int, seed: int) -> Keyed:
    return Keyed(size, np.random.PCG64(seed).random_raw(8))


@given(st.integers(1, 5000), st.integers(0, 2**32 - 1), st.data())
def test_a_keyed_order_has_every_place_once_and_any_part_of_it_can_be_asked_for(size: int, seed: int, data):
    order = keyed(size, seed)
    whole = order.take(0, size)
    assert np.sort(whole).tolist() == list(range(size))
    first = data.draw(st.integers(0, size))
    stop = data.draw(st.integers(first, size + 5))
    assert order.take(first, stop).tolist() == whole[first:stop].tolist() and whole.dtype == np.int64


@given(st.integers(2**20 + 1, 2**42), st.integers(0, 9))
def test_a_keyed_order_of_any_length_stays_in_its_range_and_repeats_nothing(size: int, seed: int):
    places = keyed(size, seed).take(size - 1000, size)
    assert places.min() >= 0 and places.max() < size and len(np.unique(places)) == 1000


def test_twelve_places_in_a_row_of_a_keyed_order_are_as_random_as_those_of_a_permutation():
    """The ranks of the places, over 6,000 keys, are held against what uniform permutations of 12 have."""
    places = np.array([keyed(2**20 + 1, seed).take(0, 12) for seed in range(6_000)])
    for modulus in (2, 12, 1025):  # 1025 is the size of a half; with fewer rounds, steps within it are regular
        steps = (places[:, 1] - places[:, 0]) % modulus
        assert stats.chisquare(np.bincount(steps, minlength=modulus)).pvalue > 1e-4
    orders = places.argsort()
    for position in range(12):  # every place is at every position equally often
        assert stats.chisquare(np.bincount(orders[:, position], minlength=12)).pvalue > 1e-4
    neighbours = np.bincount(orders[:, 0] * 12 + orders[:, 1], minlength=144).reshape(12, 12)
    assert stats.chisquare(neighbours[~np.eye(12, dtype=bool)]).pvalue > 1e-4
    inversions = sum((orders[:, i] > orders[:, j]) for i in range(12) for j in range(i + 1, 12))
    # Mean and variance of the inversions of a permutation of n: n(n-1)/4 and n(n-1)(2n+5)/72.
    assert abs(inversions.mean() - 33) < 4 * (132 * 29 / 72 / 6_000) ** 0.5
    assert abs(inversions.var() / (132 * 29 / 72) - 1) < 0.05


def test_a_long_text_has_a_keyed_order_whose_epochs_differ():
    order = Order(5_000_000_001, 256, seed=7)
    assert order.method == "keyed" and Order(256 * 2**20, 256, seed=7).method == "sorted"
    epochs = [order.take(epoch * order.size, 1000) for epoch in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    for epoch in epochs:
        assert stats.kstest(epoch / 5e9, "uniform").pvalue > 1e-3
        assert abs(stats.spearmanr(epoch, np.arange(1000)).statistic) < 0.1
    assert order.take(0, 5).tolist() == GOLDEN_LONG
