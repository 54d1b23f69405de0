"""Speeds, percentiles and bytes mean what their names say."""

import time

import pytest
import torch

from lmexp.inference.measure import BatchShape, Timing, read_bytes_per_step, speed_columns, time_generation
from lmexp.models.gpt import GPT
from tests.inference.test_quantise import config_of, model_of

CPU = torch.device("cpu")
WIDTH, VOCAB = 64, 61


class Noting(GPT):
    """Notes what it was given, and the seconds it took by its own clock, at least 2 ms."""

    def forward(self, tokens, cache=None, last_only=False):
        began = time.perf_counter()
        time.sleep(0.002)
        given = (tuple(tokens.shape), cache[0].length)
        scores = super().forward(tokens, cache, last_only)
        self.__dict__.setdefault("calls", []).append((given, time.perf_counter() - began))
        return scores


def test_prefill_reads_the_prompt_and_each_step_one_token_after_those_before():
    model = Noting(config_of()).eval()
    time_generation(model, BatchShape(batch=3, prompt=5, new=4), VOCAB, CPU, seconds=0)
    given = [given for given, _ in model.calls]
    assert given[:4] == given[4:] == [((3, 5), 0), ((3, 1), 5), ((3, 1), 6), ((3, 1), 7)]  # warm-up, and once measured


def test_times_are_the_models_own_and_no_more_than_the_walls():
    model, shape = Noting(config_of()).eval(), BatchShape(batch=2, prompt=10, new=4)
    began = time.perf_counter()
    timing = time_generation(model, shape, VOCAB, CPU, seconds=0.2)
    wall, own = time.perf_counter() - began, [seconds for _, seconds in model.calls[4:]]
    assert sum(timing.prefills) + sum(timing.steps) < wall
    assert all(a >= b for a, b in zip(timing.prefills, own[::4], strict=True))
    steps = [seconds for i, seconds in enumerate(own) if i % 4]
    assert all(a >= b for a, b in zip(timing.steps, steps, strict=True))


def test_speeds_are_tokens_over_medians():
    timing = Timing([0.4, 0.5, 9.0], [0.01] * 90 + [0.02] * 8 + [0.3] * 2, 0)
    columns = speed_columns(timing, BatchShape(batch=2, prompt=10, new=6))
    assert columns["time_to_first_token_ms"] == pytest.approx(500)
    assert columns["prefill_tokens_per_second"] == pytest.approx(2 * 10 / 0.5)
    assert columns["decode_tokens_per_second"] == pytest.approx(2 / 0.01)
    assert [round(columns[f"decode_ms_{name}"]) for name in ("p50", "p95", "p99")] == [10, 20, 300]


def test_percentiles_without_the_samples_for_them_are_null():
    def columns(samples: int):
        return speed_columns(Timing([0.1], [0.001] * samples, 0), BatchShape(1, 1, 2))

    assert columns(19)["decode_ms_p95"] is None and columns(20)["decode_ms_p95"] == pytest.approx(1)
    assert columns(99)["decode_ms_p99"] is None and columns(100)["decode_ms_p99"] == pytest.approx(1)


def test_the_fast_ones_have_samples_for_all_percentiles():
    timing = time_generation(model_of(), BatchShape(1, 4, 12), VOCAB, CPU)
    assert len(timing.steps) >= 100 and len(timing.prefills) >= 10


@pytest.mark.parametrize("tie", [True, False])
def test_a_step_reads_every_matrix_once_and_of_lookup_tables_a_row(tie: bool):
    model = model_of(tie_embeddings=tie)
    shape = BatchShape(batch=3, prompt=8, new=4)
    weights = sum(weight.numel() for weight in model.parameters())
    tables = 16 * WIDTH + (0 if tie else VOCAB * WIDTH)  # looked up only: positions, and an untied embedding
    rows = 3 * WIDTH * (1 if tie else 2)
    cached = 2 * 2 * 3 * WIDTH * (9 + 10 + 11) / 3  # k and v, layers, B, C, and positions filled in three steps
    kv_cache_bytes = sum(layer.nbytes for layer in model.new_cache(3, 12))
    assert read_bytes_per_step(model, shape, kv_cache_bytes) == 4 * (weights - tables + rows + cached)


def test_a_step_reads_quantised_weights_as_they_are_stored():
    pytest.importorskip("torchao")
    shape = BatchShape(1, 8, 4)
    int8, full = (read_bytes_per_step(model_of(p), shape, 0) for p in ("int8", None))
    assert full - int8 == pytest.approx(3 * 98_304, rel=0.05)  # three bytes of each weight of the matrices saved
