"""What makes a continuation faster: each part with it and without, in turn, medians and ratios.

    python benchmarks/decode.py [cache] [compile] [groups]

- cache: keys and values of earlier tokens are kept; without, every new token reads the whole text again (gpt_tiny);
- compile: the step of llama_mini is compiled by torch.compile, in each precision;
- groups: heads that share keys and values are read as positions of one head; without, torch's attention is told of the
  groups, or each key is copied for every head that reads it.

Weights are random. One thread makes the figures comparable where other programs use the other cores:
OMP_NUM_THREADS=1 python benchmarks/decode.py
"""

import sys
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch.nn import functional as F

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.inference.quantise import convert
from lmexp.models.build import build_model
from lmexp.models.replay import compile_step, decoding_step

ROUNDS = 7
PROMPT, NEW = 64, 128
PRECISIONS = ["fp32", "bf16", "int8", "int4"]


def model_of(*words: str) -> Any:
    """Return the model that these words describe, with random weights."""
    config = Composer(paths.search_roots(), words=list(words)).config({}).model
    return build_model(config, seed=0).eval()


def compare(what: str, ways: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, per: int = 1) -> None:
    """Time each way in turn, and print the median time of one of `per` parts, and its ratio to the last way."""
    for way in ways.values():
        way()  # warms up
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            taken[name].append((time.perf_counter() - began) / per * 1e3)
    last = median(taken[list(ways)[-1]])
    print(what)
    for name, each in taken.items():
        spread = f"{min(each):.3g} to {max(each):.3g}"
        print(f"  {name:<28} {median(each):8.3f} ms ({spread}), {median(each) / last:.2f} times the last line")


def cache() -> None:
    """Continue a text with the cache and without; both give the same text."""
    model = model_of("model=gpt_tiny", "model.vocab_size=257")
    prompt = torch.randint(257, (1, PROMPT), generator=torch.Generator().manual_seed(0))

    def without() -> torch.Tensor:
        tokens = prompt
        for _ in range(NEW):
            tokens = torch.cat([tokens, model(tokens, last_only=True).argmax(-1)], 1)
        return tokens

    def with_cache() -> torch.Tensor:
        kept, tokens = model.new_cache(1), [prompt]
        for _ in range(NEW):
            tokens.append(model(tokens[-1], kept, last_only=True).argmax(-1))
        return torch.cat(tokens, 1)

    assert torch.equal(with_cache(), without())
    compare(
        f"a new token after {PROMPT} to {PROMPT + NEW}", {"without": without, "with the cache": with_cache}, per=NEW
    )


def compile() -> None:
    """Continue a text by the model's own steps and by compiled ones, in each precision."""
    vocabulary = 8192
    for precision in PRECISIONS:
        model = model_of("model=llama_mini", f"model.vocab_size={vocabulary}")
        convert(model, precision, "bf16")
        compiled = compile_step(model)
        prompt = torch.randint(vocabulary, (1, PROMPT), generator=torch.Generator().manual_seed(0))

        def steps(model: Any = model, prompt: torch.Tensor = prompt, forward: Any = None) -> None:
            kept = model.new_cache(1, PROMPT + NEW)
            tokens = model(prompt, kept, last_only=True).argmax(-1)
            step = decoding_step(model, kept, forward)
            for _ in range(NEW - 1):
                tokens = step(tokens).argmax(-1)

        ways = {"the model's own step": steps, "compiled": lambda steps=steps, forward=compiled: steps(forward=forward)}
        compare(f"a new token of llama_mini in {precision}", ways, per=NEW)


def groups() -> None:
    """Attention of one position on 2,048 others: 32 heads of 64 read 8 heads of keys and values."""
    heads, kv_heads, length, size = 32, 8, 2048, 64
    for kind in (torch.float32, torch.bfloat16):
        query = torch.randn(1, heads, 1, size).to(kind)
        key, value = (torch.randn(1, kv_heads, length, size).to(kind) for _ in range(2))

        def told(query=query, key=key, value=value) -> torch.Tensor:  # type: ignore[no-untyped-def]
            return F.scaled_dot_product_attention(query, key, value, enable_gqa=True)

        def copied(query=query, key=key, value=value) -> torch.Tensor:  # type: ignore[no-untyped-def]
            key, value = (each.repeat_interleave(heads // kv_heads, 1) for each in (key, value))
            return F.scaled_dot_product_attention(query, key, value)

        def as_positions(query=query, key=key, value=value) -> torch.Tensor:  # type: ignore[no-untyped-def]
            folded = query.unflatten(1, (kv_heads, -1)).squeeze(3)
            return F.scaled_dot_product_attention(folded, key, value)

        ways = {"torch is told of groups": told, "keys are copied": copied, "heads as positions": as_positions}
        compare(f"grouped attention of one position in {str(kind).removeprefix('torch.')}", ways, rounds=31)


@torch.inference_mode()
def main() -> None:
    """Run the parts that the command line names, or all."""
    parts = {"cache": cache, "compile": compile, "groups": groups}
    for name in sys.argv[1:] or parts:
        parts[name]()


if __name__ == "__main__":
    main()
