"""How fast a model continues a batch of prompts, and how much memory it takes and reads.

Prefill reads the prompts in one pass and gives the first new token. Decode is one pass for each further token, over
that token alone, with the keys and values of all earlier ones in a cache. Each pass takes the most likely token, and
choosing it is part of the time. The clock is read after every token, when the device has finished: that is when a
reader would see the token.
"""

import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from lmexp.cost.step_meter import synchronise
from lmexp.inference.quantise import stored_bytes
from lmexp.models.base import Decoder
from lmexp.models.replay import Pass, Step, decoding_step

MAX_SECONDS = 10.0
"""Time after which no further round of a row starts; every row has at least one round."""
ENOUGH_PREFILLS, ENOUGH_STEPS = 10, 100
"""Samples after which measuring stops; a p99 needs a hundred."""
MIN_SAMPLES = {"p50": 1, "p95": 20, "p99": 100}
"""Samples that each percentile needs, so that it is not just the slowest sample."""


@dataclass(frozen=True)
class BatchShape:
    """The size of a batch of prompts and of their continuations."""

    batch: int
    """Sequences in the batch."""
    prompt: int
    """Tokens of each prompt."""
    new: int
    """New tokens of each sequence; the first comes from the prefill."""


@dataclass(frozen=True)
class Timing:
    """Seconds of every prefill and every decode step, without the warm-up."""

    prefills: list[float]
    steps: list[float]
    kv_cache_bytes: int
    """Bytes of the cache, which has room for the prompt and the new tokens."""
    compile_seconds: float | None = None
    """Seconds until a compiled step was ready, with its first pass; None without compiling."""


@torch.inference_mode()
def time_generation(
    model: nn.Module,
    shape: BatchShape,
    vocab_size: int,
    device: torch.device,
    seconds: float = MAX_SECONDS,
    compiled: Pass | None = None,
) -> Timing:
    """Continue random prompts until there are enough samples or `seconds` have passed.

    `compiled` is what models/replay.py's `compile_step` made of the model, if its steps are to be compiled.
    """
    assert isinstance(model, Decoder)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(vocab_size, (shape.batch, shape.prompt), generator=generator).to(device)
    prefills: list[float] = []
    steps: list[float] = []
    # Warm-up: chooses kernels, loads the weights, and compiles the step, which is for one size of the cache.
    warm_up = _generate(model, prompt, min(shape.new, 4), device, shape.prompt + shape.new, compiled)
    started = time.perf_counter()
    while True:
        once = _generate(model, prompt, shape.new, device, shape.prompt + shape.new, compiled)
        prefills += once.prefills
        steps += once.steps
        enough = len(prefills) >= ENOUGH_PREFILLS and len(steps) >= ENOUGH_STEPS
        if enough or time.perf_counter() - started > seconds:
            return Timing(prefills, steps, once.kv_cache_bytes, warm_up.compile_seconds)


def _generate(
    model: Decoder, prompt: Tensor, new: int, device: torch.device, capacity: int, compiled: Pass | None
) -> Timing:
    """Continue `prompt` (B, T) by `new` tokens, once, with a cache for `capacity` tokens that is freed afterwards."""
    cache = model.new_cache(prompt.shape[0], capacity)

    def timed(step: Step, tokens: Tensor) -> tuple[Tensor, float]:
        synchronise(device)
        started = time.perf_counter()
        chosen = step(tokens).argmax(-1)  # (B, 1)
        synchronise(device)
        return chosen, time.perf_counter() - started

    tokens, first = timed(lambda tokens: model(tokens, cache, last_only=True), prompt)
    began = time.perf_counter()
    step = decoding_step(model, cache, compiled)  # recording a graph is not part of a step's time
    preparing = time.perf_counter() - began
    rest = []
    for _ in range(new - 1):
        tokens, seconds = timed(step, tokens)
        rest.append(seconds)
    return Timing([first], rest, sum(layer.nbytes for layer in cache), preparing + rest[0] if compiled else None)


def speed_columns(timing: Timing, shape: BatchShape) -> dict[str, float | int | None]:
    """Return the columns of speed: medians, and the percentiles that have enough samples."""
    steps_ms = np.array(timing.steps) * 1e3
    percentiles = {
        f"decode_ms_{name}": float(np.percentile(steps_ms, int(name[1:]))) if len(steps_ms) >= needed else None
        for name, needed in MIN_SAMPLES.items()
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
    """Return the bytes of the weights and buffers of a model as they are stored; shared ones count once."""
    return sum(_addresses(model).values())


def read_bytes_per_step(model: nn.Module, shape: BatchShape, kv_cache_bytes: int) -> float:
    """Return the bytes that a decode step must at least read: the weights, and the filled part of the cache.

    Every weight that is multiplied is read whole, the output head included; a tied one counts once. A table that is
    only looked up counts one row for each sequence. The cache grows with every step, so the mean over the steps is
    taken. Whatever a kernel reads or writes in addition (such as integers converted to floats) is not counted.
    """
    lookups = [layer for layer in model.modules() if isinstance(layer, nn.Embedding)]
    multiplied: dict[int, int] = {}
    for layer in model.modules():
        if not isinstance(layer, nn.Embedding):
            for tensor in layer.parameters(recurse=False):
                multiplied |= stored_bytes(tensor)
    looked_up = [table.weight[0].nbytes for table in lookups if table.weight.data_ptr() not in multiplied]
    # The prefill fills `prompt` positions; the first of new - 1 steps reads one more, the last new - 1 more.
    filled = (shape.prompt + shape.new / 2) / (shape.prompt + shape.new) if _cache_grows(model) else 1
    return sum(multiplied.values()) + shape.batch * sum(looked_up) + kv_cache_bytes * filled


def _cache_grows(model: nn.Module) -> bool:
    """Whether the cache grows with the number of tokens: keys and values do, the state of an LSTM does not."""
    assert isinstance(model, Decoder)
    one, two = (sum(layer.nbytes for layer in model.new_cache(1, capacity)) for capacity in (1, 2))
    return one == 0 or two > one  # a cache that is empty at first is filled step by step


def _addresses(model: nn.Module) -> dict[int, int]:
    """Return the bytes of every stored tensor of a model by its address, so that a shared one appears once."""
    sizes: dict[int, int] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        sizes |= stored_bytes(tensor)
    return sizes
