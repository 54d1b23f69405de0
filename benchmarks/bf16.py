"""A training step in bf16 on a CPU: torch's own matmuls against those in float32 (cost/cpu_products.py), and fp32.

The two ways to multiply bf16 take turns in one process, and so does the same step in fp32. On a CPU with bf16
instructions, torch's matmuls are the faster ones, and lmexp keeps them.

    OMP_NUM_THREADS=1 python benchmarks/bf16.py [--vocab 512] [--steps 3]
"""

import argparse
from statistics import median

import torch

from benchmarks.training import CONTEXT, LAYERS, SEQUENCES, WIDTH, our_step
from lmexp.cost.cpu_products import has_slow_bf16, replace_kernels


def main() -> None:
    """Print the milliseconds of a step in each way: medians, without the first step."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vocab", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3, help="steps of each way that count [default: 3]")
    options = parser.parse_args()
    narrow, wide = (our_step(options.vocab, is_narrow, compiled=False) for is_narrow in (True, False))
    ways = {"bf16, torch's matmuls": (narrow, False), "bf16, in float32": (narrow, True), "fp32": (wide, False)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + options.steps):
        for name, (step, is_replaced) in ways.items():
            replace_kernels(is_replaced)
            times[name].append(1e3 * step())
    print(
        f"{LAYERS} x {WIDTH}, context {CONTEXT}, {SEQUENCES} sequences, vocabulary {options.vocab}, "
        f"{torch.get_num_threads()} threads; torch has {'no ' if has_slow_bf16() else ''}fast bf16 here"
    )
    middle = {name: median(each[1:]) for name, each in times.items()}
    for name, milliseconds in middle.items():
        print(f"{name:22} {milliseconds:9.1f} ms  {milliseconds / middle['fp32']:.2f} of fp32")


if __name__ == "__main__":
    main()
