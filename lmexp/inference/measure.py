"""How fast one model continues a batch of prompts, and what it holds and reads in memory meanwhile.

A prompt is read in one pass (prefill), which gives the first new token; every further token is a pass over
that one token alone (decode), with keys and values of all before it in a cache. The likeliest token is
taken each time, and choosing it is part of the time. The clock is read when the device is done, after every
token: that is when a reader would see it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from lmexp.inference.quantise import stored_bytes
from lmexp.models.base import Decoder

SECONDS = 10.0
"""The most that one row is measured for; a row that is slower than that has one round, whatever it takes."""
PREFILLS, STEPS = 10, 100
"""Samples that are enough; a p99 takes a hundred."""
NEEDED = {"p50": 1, "p95": 20, "p99": 100}
"""Samples from which on each percentile is more than the slowest sample by another name."""


@dataclass(frozen=True)
class Shape:
    """What is asked of a model at once."""

    batch: int
    """Sequences side by side."""
    prompt: int
    """Tokens of each prompt."""
    new: int
    """Tokens that each sequence gets, the first of them from the prefill."""


@dataclass(frozen=True)
class Timing:
    """Seconds of every prefill and of every decode step, warm-up left out."""

    prefills: list[float]
    steps: list[float]
    kv_cache_bytes: int
    """Of the buffers, which have room for prompt and new tokens."""


@torch.inference_mode()
def time_generation(
    model: nn.Module, shape: Shape, vocab_size: int, device: torch.device, seconds: float = SECONDS
) -> Timing:
    """Continue random prompts until there are enough samples, or `seconds` have passed."""
    assert isinstance(model, Decoder)
    dice = torch.Generator().manual_seed(0)
    prompt = torch.randint(vocab_size, (shape.batch, shape.prompt), generator=dice).to(device)
    prefills: list[float] = []
    steps: list[float] = []
    _generate(model, prompt, min(shape.new, 4), device)  # chooses kernels, and touches the weights
    started = time.perf_counter()
    while True:
        once = _generate(model, prompt, shape.new, device)
        prefills += once.prefills
        steps += once.steps
        enough = len(prefills) >= PREFILLS and len(steps) >= STEPS
        if enough or time.perf_counter() - started > seconds:
            return Timing(prefills, steps, once.kv_cache_bytes)


def _generate(model: Decoder, prompt: Tensor, new: int, device: torch.device) -> Timing:
    """Continue `prompt` (B, T) by `new` tokens, once, with a cache that is gone afterwards."""
    cache = model.new_cache(prompt.shape[0], prompt.shape[1] + new)

    def timed(tokens: Tensor) -> tuple[Tensor, float]:
        synchronise(device)
        started = time.perf_counter()
        chosen = model(tokens, cache, last_only=True).argmax(-1)  # (B, 1)
        synchronise(device)
        return chosen, time.perf_counter() - started

    tokens, first = timed(prompt)
    rest = []
    for _ in range(new - 1):
        tokens, seconds = timed(tokens)
        rest.append(seconds)
    return Timing([first], rest, sum(layer.nbytes for layer in cache))


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type != "cpu":
        wait: Callable[[], None] = getattr(torch, device.type).synchronize
        wait()


def speed_columns(timing: Timing, shape: Shape) -> dict[str, float | int | None]:
    """Return the columns of speed: medians, and percentiles where there are samples enough for them."""
    steps_ms = np.array(timing.steps) * 1e3
    percentiles = {
        f"decode_ms_{name}": float(np.percentile(steps_ms, int(name[1:]))) if len(steps_ms) >= needed else None
        for name, needed in NEEDED.items()
    }
    first = median(timing.prefills)
    return {
        "time_to_first_token_ms": first * 1e3,
        "prefill_tokens_per_second": shape.batch * shape.prompt / first,
        "decode_tokens_per_second": shape.batch / median(timing.steps),
        **percentiles,
        "prefill_samples": len(timing.prefills),
        "decode_samples": len(timing.steps),
    }


def weights_bytes(model: nn.Module) -> int:
    """Return the bytes that a model's weights and buffers take as stored, shared ones once."""
    return sum(_addresses(model).values())


def read_bytes_per_step(model: nn.Module, shape: Shape, kv_cache_bytes: int) -> float:
    """Return the bytes that a decode step cannot do without: weights, and the cache as far as it is filled.

    Every stored weight that multiplies is read whole, an output head too, once if it is tied. Of a table that
    is only looked up it is one row for each sequence. The cache grows with every step: the mean over the
    steps is taken. What a kernel reads or writes beyond that (integers made floats, say) is not counted.
    """
    lookups = [layer for layer in model.modules() if isinstance(layer, nn.Embedding)]
    multiplied: dict[int, int] = {}
    for layer in model.modules():
        if not isinstance(layer, nn.Embedding):
            for tensor in layer.parameters(recurse=False):
                multiplied |= stored_bytes(tensor)
    rows = [table.weight[0].nbytes for table in lookups if table.weight.data_ptr() not in multiplied]
    # The prefill fills `prompt` positions; the first of new - 1 steps reads one more, the last new - 1 more.
    filled = (shape.prompt + shape.new / 2) / (shape.prompt + shape.new) if _cache_grows(model) else 1
    return sum(multiplied.values()) + shape.batch * sum(rows) + kv_cache_bytes * filled


def _cache_grows(model: nn.Module) -> bool:
    """Return whether more tokens take a larger cache: keys and values do, the state of an LSTM does not."""
    assert isinstance(model, Decoder)
    one, two = (sum(layer.nbytes for layer in model.new_cache(1, capacity)) for capacity in (1, 2))
    return one == 0 or two > one  # one that holds nothing yet is filled as it goes


def _addresses(model: nn.Module) -> dict[int, int]:
    found: dict[int, int] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        found |= stored_bytes(tensor)
    return found
