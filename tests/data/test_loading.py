"""Batches: what a step sees depends on neither devices, accumulation, workers nor interruptions."""

from itertools import islice, pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lmexp.data import windows
from lmexp.data.loading import TrainBatches, ValidationBatches
from lmexp.data.order import Order
from lmexp.data.windows import Windows
from lmexp.errors import UserError

CONTEXT = 8
SEVERAL = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def train(store, batch=12, micro=2, rank=0, world=1, first=0) -> TrainBatches:
    return TrainBatches(Windows(store, CONTEXT, seed=5), batch, micro, rank, world, first)


def validation(store, context, batch, rank=0, world=1) -> ValidationBatches:
    return ValidationBatches(Windows(store, context, seed=5), batch, rank, world)


def rows(batches) -> list[tuple[int, ...]]:
    """Return every sequence of the batches: its inputs and its last target."""
    joined = [torch.cat([b["inputs"], b["targets"][:, -1:]], dim=1) for b in batches]
    return [tuple(row) for batch in joined for row in batch.tolist()]


@pytest.fixture
def store(byte_store):
    return byte_store(1000, 101)


def test_a_batch_holds_inputs_and_the_tokens_that_follow_them(store):
    tokens = store.array("train")
    order = Order(store.tokens("train"), CONTEXT, seed=5)
    for i, batch in enumerate(islice(train(store), 100)):
        for key, shift in (("inputs", 0), ("targets", 1)):
            starts = order.take(2 * i, 2)
            assert batch[key].dtype == torch.int64 and batch[key].is_contiguous()
            assert batch[key].tolist() == [tokens[s + shift : s + shift + CONTEXT].tolist() for s in starts]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("micro", [1, 2, 4])
def test_a_step_sees_the_same_sequences_on_any_number_of_devices(store, world, micro):
    steps, batch = 15, 24
    order = Order(store.tokens("train"), CONTEXT, seed=5)
    tokens = store.array("train")
    each = batch // (micro * world)  # micro-batches a rank and step
    streams = [iter(train(store, batch, micro, rank, world)) for rank in range(world)]
    for step in range(steps):
        seen = [row for stream in streams for row in rows(islice(stream, each))]
        starts = order.take(step * batch, batch)
        assert sorted(seen) == sorted(tuple(tokens[s : s + CONTEXT + 1].tolist()) for s in starts)


def test_micro_batches_interleave_the_ranks(store):
    whole = rows(islice(train(store, batch=12, micro=12), 1))
    first, second = (rows(islice(train(store, 12, 2, rank, 2), 3)) for rank in range(2))
    assert first == whole[0:2] + whole[4:6] + whole[8:10]
    assert second == whole[2:4] + whole[6:8] + whole[10:12]


@SEVERAL
@given(cut=st.integers(0, 40), micro=st.sampled_from([1, 2, 3]), world=st.integers(1, 2))
def test_a_run_that_stops_and_resumes_sees_what_an_undisturbed_one_sees(store, cut, micro, world):
    batch = 12
    each = batch // (micro * world)
    for rank in range(world):
        undisturbed = rows(islice(train(store, batch, micro, rank, world), 45 * each))
        before = rows(islice(train(store, batch, micro, rank, world), cut * each))
        resumed = train(store, batch, micro, rank, world, first=cut * batch)
        assert before + rows(islice(resumed, (45 - cut) * each)) == undisturbed


@pytest.mark.parametrize("batches", [lambda s: train(s), lambda s: validation(s, CONTEXT, 2)])
def test_loader_workers_do_not_change_the_order(store, batches):
    alone = rows(islice(DataLoader(batches(store), batch_size=None), 6))
    helped = rows(islice(DataLoader(batches(store), batch_size=None, num_workers=2), 6))
    assert helped == alone


def test_a_batch_that_does_not_divide_is_refused(store):
    with pytest.raises(UserError, match=r"12 sequences does not divide into micro-batches of 5 on 1 device$"):
        train(store, batch=12, micro=5)
    with pytest.raises(UserError, match="micro-batches of 3 on 8 devices"):
        train(store, batch=12, micro=3, world=8)
    with pytest.raises(ValueError, match="sample 5 begins no batch of 12"):
        train(store, first=5)


@SEVERAL
@given(tokens=st.integers(2, 60), context=st.integers(1, 20), batch=st.integers(1, 5), world=st.integers(1, 4))
def test_validation_predicts_every_token_but_the_first_exactly_once(byte_store, tokens, context, batch, world):
    store = byte_store(100, tokens)
    stream = store.array("validation").tolist()
    windows = -(-(tokens - 1) // context)
    if windows < world:
        with pytest.raises(UserError, match=f"has {windows} samples, too few for {world}"):
            validation(store, context, batch, 0, world)
        return
    found: dict[int, list[tuple[int, int]]] = {}
    sizes = []
    for rank in range(world):
        batches = list(validation(store, context, batch, rank, world))
        sizes.append(sum(len(b["inputs"]) for b in batches))
        for b in batches:
            assert b["inputs"].shape == b["targets"].shape and 0 < len(b["inputs"]) <= batch
            assert b["inputs"].dtype == b["targets"].dtype == torch.int64
        # Deal this rank's windows out by their place in the text: its k-th is the (k * world + rank)-th.
        flat = [pair for b in batches for pair in zip(b["inputs"], b["targets"], strict=True)]
        for k, (inputs, targets) in enumerate(flat):
            found[k * world + rank] = list(zip(inputs.tolist(), targets.tolist(), strict=True))
    pairs = [pair for k in sorted(found) for pair in found[k]]
    assert pairs == list(pairwise(stream))
    assert max(sizes) - min(sizes) <= 1


def test_the_last_short_window_is_a_batch_of_its_own(byte_store):
    shapes = [tuple(b["inputs"].shape) for b in validation(byte_store(100, 46), CONTEXT, 4)]
    assert shapes == [(4, 8), (1, 8), (1, 5)]


def test_the_windows_of_the_next_batch_are_announced_while_this_one_is_used(store, monkeypatch):
    announced = []
    read_soon = windows.read_soon

    def record(tokens, starts, length):
        announced.append([tuple(tokens[start : start + length].tolist()) for start in starts])
        read_soon(tokens, starts, length)

    monkeypatch.setattr(windows, "read_soon", record)
    of_rank = train(store, batch=4, micro=2, rank=1, world=2)
    taken = list(islice(of_rank, 150))  # more than an epoch
    assert not announced  # a small file is in memory anyway
    monkeypatch.setattr("lmexp.data.store.MIN_ADVISED", 0)
    assert rows(islice(of_rank, 150)) == rows(taken) and len(announced) == 150
    assert all(windows == rows([batch]) for windows, batch in zip(announced, taken[1:], strict=False))
