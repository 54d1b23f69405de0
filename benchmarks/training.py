"""A training step of lmexp's GPT against a plain training loop over a plain GPT, on a CPU.

Both have the same shape, batch and optimizer, eager and compiled; their steps take turns in one process. The loss of
the plain loop is F.cross_entropy over all logits in float32, lmexp's is computed in pieces (tasks/cross_entropy.py).

    python benchmarks/training.py [--precision bf16,fp32] [--vocab 8192,50304] [--steps 7] [--threads N]
"""

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.models.build import build_model
from lmexp.tasks.causal_lm import CausalLM
from lmexp.train.compiling import compile_task

LAYERS, WIDTH, HEADS, CONTEXT, SEQUENCES = 6, 384, 6, 256, 16
LEFT_OUT = 2
"""First steps of each side, in which memory is taken and graphs are compiled."""

Step = Callable[[], float]


class PlainBlock(nn.Module):
    """A block of GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """One layer: (B, T, C) -> (B, T, C)."""
        batch, length, width = x.shape
        query, key, value = (
            part.view(batch, length, HEADS, width // HEADS).transpose(1, 2)
            for part in self.qkv(self.first(x)).split(width, dim=2)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).contiguous().view(batch, length, width))
        return x + self.down(F.gelu(self.up(self.second(x)), approximate="tanh"))


class PlainGPT(nn.Module):
    """GPT-2 with a tied head."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*[PlainBlock() for _ in range(LAYERS)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocab, bias=False)
        self.head.weight = self.tokens.weight
        nn.init.normal_(self.tokens.weight, 0.0, 0.02)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss."""
        x = self.tokens(inputs) + self.places(torch.arange(inputs.shape[1]))
        logits = self.head(self.norm(self.blocks(x)))
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def plain_step(vocab: int, narrow: bool, compiled: bool) -> Step:
    """Return a step of the plain loop."""
    model = PlainGPT(vocab)
    forward = torch.compile(model) if compiled else model
    return _stepper(forward, model, vocab, narrow)


def our_step(vocab: int, narrow: bool, compiled: bool) -> Step:
    """Return a step of lmexp's task, as training calls it."""
    words = [
        "model=gpt", f"model.n_layers={LAYERS}", f"model.d_model={WIDTH}", f"model.n_heads={HEADS}",
        f"model.context={CONTEXT}", f"model.vocab_size={vocab}", f"batch.tokens={CONTEXT * SEQUENCES}",
        f"precision={'bf16' if narrow else 'fp32'}",
    ]  # fmt: skip
    config = Composer(paths.search_roots(), words=words).config({})
    task = CausalLM(build_model(config.model, 0), config)
    if compiled:
        compile_task(task)
    targets_of_step = torch.tensor(CONTEXT * SEQUENCES)

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        return task.training_step({"inputs": inputs, "targets": targets, "step_targets": targets_of_step}, 0)

    return _stepper(loss, task.model, vocab, narrow)


def _stepper(loss: Callable[[Tensor, Tensor], Tensor], model: nn.Module, vocab: int, narrow: bool) -> Step:
    tokens = torch.randint(vocab, (SEQUENCES, CONTEXT + 1), generator=torch.Generator().manual_seed(0))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16) if narrow else nullcontext():
            value = loss(inputs, targets)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - started

    return step


def main() -> None:
    """Print a table: milliseconds of a step, medians, and the speed relative to the plain loop, eager and compiled."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--precision", default="bf16,fp32")
    parser.add_argument("--vocab", default="8192,50304")
    parser.add_argument("--steps", type=int, default=7, help="steps of each side that count [default: 7]")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(f"{LAYERS} x {WIDTH}, context {CONTEXT}, {SEQUENCES} sequences, {torch.get_num_threads()} threads")
    for vocab in map(int, options.vocab.split(",")):
        for precision in options.precision.split(","):
            narrow = precision == "bf16"
            sides = {
                "plain": plain_step(vocab, narrow, compiled=False),
                "lmexp": our_step(vocab, narrow, compiled=False),
                "plain, compiled": plain_step(vocab, narrow, compiled=True),
                "lmexp, compiled": our_step(vocab, narrow, compiled=True),
            }
            times: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(LEFT_OUT + options.steps):
                for name, step in sides.items():
                    times[name].append(step())
            middle = {name: median(seconds[LEFT_OUT:]) for name, seconds in times.items()}
            print(f"vocabulary {vocab}, {precision}")
            for name, seconds in middle.items():
                eager, compiled = middle["plain"] / seconds, middle["plain, compiled"] / seconds
                print(f"  {name:16} {seconds * 1e3:7.0f} ms  {eager:.2f} x plain  {compiled:.2f} x plain, compiled")


if __name__ == "__main__":
    main()
