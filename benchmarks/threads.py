"""How many threads make a training step fast, with the cores free and with other programs on some of them.

    python benchmarks/threads.py [--rounds 7] [--busy 1] [--threads 1,2,4]

A step of a small and of a larger GPT (forward, backward, AdamW) is timed with each number of threads, all of them in
turn in each round, first with nothing beside it, then with `--busy` programs that compute without a pause. The table
has the median seconds of a step, and the smallest and the largest ratio to the first number of threads over the rounds.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable

import torch

from lmexp.config.models.gpt import GPTConfig
from lmexp.cost.contention import cores_of_others
from lmexp.cost.device import cores
from lmexp.models.gpt import GPT

SHAPES = {"2 layers of width 64": (2, 64, 8), "6 layers of width 256": (6, 256, 4)}
"""Layers, width, and sequences of 128 tokens a step."""
CONTEXT, VOCABULARY = 128, 512
TRIAL_SECONDS = 1.0


def main() -> None:
    """Print a table for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--busy", type=int, default=1)
    parser.add_argument("--threads", default="1,2,4")
    options = parser.parse_args()
    numbers = [int(number) for number in options.threads.split(",")]
    print(f"{cores()} cores; other programs use {cores_of_others():.1f} of them at the start")
    for name, shape in SHAPES.items():
        step = training_step(*shape)
        for busy in (0, options.busy):
            context = multiprocessing.get_context("spawn")
            others = [context.Process(target=compute, daemon=True) for _ in range(busy)]
            for other in others:
                other.start()
            time.sleep(1.0 if others else 0.0)
            rounds = [[seconds_of(step, threads) for threads in numbers] for _ in range(options.rounds)]
            for other in others:
                other.kill()
            print(f"{name}, {busy} busy programs beside it")
            for i, threads in enumerate(numbers):
                ratios = [each[i] / each[0] for each in rounds]
                median = statistics.median(each[i] for each in rounds)
                print(f"  {threads} threads  {1000 * median:8.1f} ms a step  {statistics.median(ratios):.2f} "
                      f"({min(ratios):.2f} to {max(ratios):.2f}) times that of {numbers[0]}")  # fmt: skip


def training_step(layers: int, width: int, sequences: int) -> Callable[[], None]:
    """Return a function that takes one step."""
    config = GPTConfig(
        name="gpt", n_layers=layers, d_model=width, n_heads=4, context=CONTEXT, vocab_size=VOCABULARY,
        **{"_target_": "lmexp.models.gpt.GPT"},
    )  # fmt: skip
    model = GPT(config)
    optimizer = torch.optim.AdamW(model.parameters())
    tokens = torch.randint(VOCABULARY, (sequences, CONTEXT + 1))

    def step() -> None:
        logits = model(tokens[:, :-1])
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds_of(step: Callable[[], None], threads: int) -> float:
    """Return the seconds of a step with this many threads, over about TRIAL_SECONDS."""
    torch.set_num_threads(threads)
    step()
    started, count = time.perf_counter(), 0
    while (seconds := time.perf_counter() - started) < TRIAL_SECONDS:
        step()
        count += 1
    return seconds / count


def compute() -> None:
    """Keep a core busy."""
    while True:
        pass


if __name__ == "__main__":
    main()
