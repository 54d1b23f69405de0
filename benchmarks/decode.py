"""What the key-value cache saves: continuing a text with it and without, in turn, medians and ratio.

Without a cache every new token reads the whole text again. Both ways take the likeliest token, and give the
same text; the model is gpt_tiny with fresh weights: python benchmarks/decode.py
"""

import time
from collections.abc import Callable
from statistics import median

import torch

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.models.build import build_model
from lmexp.models.gpt import GPT

PAIRS = 7
PROMPT, NEW = 64, 128


def cached(model: GPT, prompt: torch.Tensor) -> torch.Tensor:
    """Continue `prompt` (1, T), reading each token once."""
    cache = model.new_cache(1)
    tokens = [prompt]
    for _ in range(NEW):
        tokens.append(model(tokens[-1], cache, last_only=True).argmax(-1))
    return torch.cat(tokens, 1)


def uncached(model: GPT, prompt: torch.Tensor) -> torch.Tensor:
    """Continue `prompt` (1, T), reading all of it for each token."""
    tokens = prompt
    for _ in range(NEW):
        tokens = torch.cat([tokens, model(tokens, last_only=True).argmax(-1)], 1)
    return tokens


def seconds(way: Callable[[GPT, torch.Tensor], torch.Tensor], model: GPT, prompt: torch.Tensor) -> float:
    """Return the seconds of one continuation."""
    began = time.perf_counter()
    way(model, prompt)
    return time.perf_counter() - began


@torch.inference_mode()
def main() -> None:
    """Time both ways in turn."""
    config = Composer(paths.search_roots(), words=["model=gpt_tiny", "model.vocab_size=257"]).config({}).model
    model = build_model(config, seed=0).eval()
    assert isinstance(model, GPT)
    prompt = torch.randint(257, (1, PROMPT), generator=torch.Generator().manual_seed(0))
    assert torch.equal(cached(model, prompt), uncached(model, prompt))  # also warms both up
    with_cache, without = [], []
    for _ in range(PAIRS):
        with_cache.append(seconds(cached, model, prompt))
        without.append(seconds(uncached, model, prompt))
    fast, slow = median(with_cache) / NEW * 1e3, median(without) / NEW * 1e3
    print(f"a token with the cache: median {fast:.2f} ms    without: {slow:.2f} ms    ({PROMPT} + {NEW} tokens)")
    print(f"ratio of medians, without over with: {slow / fast:.1f}")


if __name__ == "__main__":
    main()
