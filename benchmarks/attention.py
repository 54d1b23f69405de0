"""Causal attention in bf16 on a CPU, forward and backward: torch's fused kernel and lmexp's matmuls in turn.

    OMP_NUM_THREADS=1 python benchmarks/attention.py [--rounds N]

Each line has 4,096 tokens, and CPU milliseconds, so that other programs matter less: medians, and the ratio.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from lmexp.models.cpu_attention import causal_attention

TOKENS = 4096
SHAPES = [(2, 16), (4, 32), (6, 64), (12, 64)]
"""Heads, and the width of a head."""
CONTEXTS = [32, 64, 128, 256, 512, 1024]


def taken(way: Callable[[Tensor, Tensor, Tensor], Tensor], heads: list[Tensor], toward: Tensor) -> float:
    """Return the CPU milliseconds of a forward and a backward pass."""
    given = [each.detach().requires_grad_() for each in heads]
    began = time.process_time()
    way(*given).backward(toward)
    return (time.process_time() - began) * 1e3


def main() -> None:
    """Print a line for each shape and context."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    for n_heads, size in SHAPES:
        for context in CONTEXTS:
            made = torch.randn(TOKENS // context, context, 3 * n_heads * size).bfloat16()
            heads = list(made.unflatten(-1, (-1, size)).transpose(1, 2).split(n_heads, dim=1))  # (B, H, T, D) each
            toward = torch.randn(TOKENS // context, context, n_heads, size).bfloat16().transpose(1, 2)
            ways = {
                "torch": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
                "lmexp": lambda q, k, v: causal_attention(q, k, v, q.shape[-1] ** -0.5),
            }
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds + 1):
                for name, way in ways.items():
                    times[name].append(taken(way, heads, toward))
            torch_ms, ours = (median(times[name][1:]) for name in ways)
            print(
                f"{n_heads:3} heads of {size}, context {context:5}: "
                f"torch {torch_ms:6.1f}  lmexp {ours:6.1f}  {torch_ms / ours:.2f}"
            )


if __name__ == "__main__":
    main()
