"""Whether small models train faster stacked in one process than one by one, on a CPU.

Eight GPTs of one shape, which differ in their weights and data, take training steps (forward, backward, AdamW) by one
thread in these ways:

- one by one: each member has a step of its own; side by side, a thread of a run of its own does the same;
- vmap: one step of all members, with torch.func.stack_module_state and vmap;
- stacked: one step of all members, with weights that have a leading member dimension, by batched matmuls.

CPU time is compared, which other programs on the machine change little. The alternative to stacking is to train as
many runs side by side as there are cores, with one thread each (`launcher.devices_per_run=auto`), and stacks of members
could be trained side by side just the same. So the ratio of CPU times is also that of the seconds for a whole study.

    python benchmarks/stacking.py [--widths 32,64,128] [--contexts 64,128] [--tokens 256,2048] [--rounds 5]
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.models.base import LanguageModel
from lmexp.models.build import build_model

MEMBERS, LAYERS, VOCAB = 8, 2, 256
SECONDS = 0.5
"""CPU time that one measurement of one way takes."""
LEFT_OUT = 2
"""First steps of a side, in which memory is taken."""

Step = Callable[[], None]
Shape = tuple[int, int, int]
"""Width, context, and tokens of a member's batch."""


def members_of(width: int, context: int) -> list[LanguageModel]:
    """Return models that differ in their weights."""
    words = [
        "model=gpt", f"model.n_layers={LAYERS}", f"model.d_model={width}", f"model.n_heads={max(1, width // 32)}",
        f"model.context={context}", f"model.vocab_size={VOCAB}", f"batch.tokens={context}",
    ]  # fmt: skip
    config = Composer(paths.search_roots(), words=words).config({})
    return [build_model(config.model, seed) for seed in range(MEMBERS)]


def batches_of(context: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of all members: (M, B, T) each."""
    drawn = torch.randint(VOCAB, (MEMBERS, tokens // context, context + 1), generator=torch.Generator().manual_seed(0))
    return drawn[..., :-1].contiguous(), drawn[..., 1:].contiguous()


def optimizer_of(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Return the optimizer of all sides."""
    return torch.optim.AdamW(parameters, lr=1e-4, fused=True)


class Stacked:
    """GPTs whose weights have a leading member dimension; M members, B sequences, T positions, C = d_model."""

    def __init__(self, members: list[LanguageModel]) -> None:
        weights, _ = stack_module_state(members)  # type: ignore[arg-type]  # a list of modules is what it takes
        self.weights = {
            name: weight.detach().requires_grad_() for name, weight in weights.items() if name[:4] != "head"
        }
        self.config, self.count = members[0].config, len(members)

    def linear(self, name: str, x: Tensor) -> Tensor:
        """(M, N, C) -> (M, N, C')."""
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        turned = weight.transpose(1, 2)
        return torch.bmm(x, turned) if bias is None else torch.baddbmm(bias[:, None], x, turned)

    def norm(self, name: str, x: Tensor) -> Tensor:
        """(M, N, C) -> (M, N, C)."""
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        scaled = F.layer_norm(x, x.shape[-1:]) * weight[:, None]
        return scaled if bias is None else scaled + bias[:, None]

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of each member: (M, B, T) -> (M,)."""
        count, batch, length = inputs.shape
        width, heads = self.config.d_model, self.config.n_heads
        table = self.weights["token_embedding.weight"]  # (M, V, C)
        shifted = inputs + VOCAB * torch.arange(count)[:, None, None]
        x = F.embedding(shifted, table.flatten(0, 1)) + self.weights["position_embedding.weight"][:, None, :length]
        x = x.view(count, batch * length, width)
        for layer in range(self.config.n_layers):
            block = f"blocks.{layer}"
            parts = self.linear(f"{block}.attention.qkv", self.norm(f"{block}.norm_attention", x))
            parts = parts.view(count * batch, length, 3, heads, width // heads)
            query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (M * B, H, T, D)
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            mixed = mixed.transpose(1, 2).reshape(count, batch * length, width)
            x = x + self.linear(f"{block}.attention.out", mixed)
            y = self.linear(f"{block}.feed_forward.up", self.norm(f"{block}.norm_feed_forward", x))
            x = x + self.linear(f"{block}.feed_forward.down", F.gelu(y, approximate="tanh"))
        logits = torch.bmm(self.norm("norm", x), table.transpose(1, 2))
        nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return nll.view(count, -1).mean(1)


def one_by_one(shape: Shape) -> Step:
    """Return a step of all members, one after another."""
    width, context, tokens = shape
    members, (inputs, targets) = members_of(width, context), batches_of(context, tokens)
    optimizers = [optimizer_of(list(member.parameters())) for member in members]

    def step() -> None:
        for member, optimizer, x, y in zip(members, optimizers, inputs, targets, strict=True):
            F.cross_entropy(member(x).flatten(0, 1), y.flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()

    return step


def stacked(shape: Shape) -> Step:
    """Return a step of all members, by batched matmuls."""
    width, context, tokens = shape
    model, (inputs, targets) = Stacked(members_of(width, context)), batches_of(context, tokens)
    return _step_of(list(model.weights.values()), lambda: model.losses(inputs, targets))


def with_vmap(shape: Shape) -> Step:
    """Return a step of all members, by vmap."""
    width, context, tokens = shape
    members, (inputs, targets) = members_of(width, context), batches_of(context, tokens)
    weights, _ = stack_module_state(members)  # type: ignore[arg-type]  # a list of modules is what it takes
    weights = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    weights.pop("head.weight", None)  # it is the table of embeddings

    def loss(own: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        tied = {**own, "head.weight": own["token_embedding.weight"]}
        return F.cross_entropy(functional_call(members[0], tied, (x,), tie_weights=False).flatten(0, 1), y.flatten())

    return _step_of(list(weights.values()), lambda: vmap(loss)(weights, inputs, targets))


def _step_of(weights: list[Tensor], losses: Callable[[], Tensor]) -> Step:
    optimizer = optimizer_of(weights)

    def step() -> None:
        losses().sum().backward()  # each member's gradients are those of its own loss
        optimizer.step()
        optimizer.zero_grad()

    return step


WAYS = {"one by one": one_by_one, "vmap": with_vmap, "stacked": stacked}


def check(shape: Shape) -> None:
    """Raise AssertionError unless stacked members have the losses and gradients of the members alone."""
    width, context, tokens = shape
    members, (inputs, targets) = members_of(width, context), batches_of(context, tokens)
    model = Stacked(members)
    losses = model.losses(inputs, targets)
    losses.sum().backward()
    for index, member in enumerate(members):
        loss = F.cross_entropy(member(inputs[index]).flatten(0, 1), targets[index].flatten())
        loss.backward()
        torch.testing.assert_close(losses[index], loss)
        for name, weight in member.named_parameters():
            torch.testing.assert_close(model.weights[name].grad[index], weight.grad)  # type: ignore[index]


def milliseconds(step: Step) -> float:
    """Return the CPU milliseconds of a member's step, of one measurement."""
    steps, started = 0, time.process_time()
    while (spent := time.process_time() - started) < SECONDS:
        step()
        steps += 1
    return 1e3 * spent / (steps * MEMBERS)


def main() -> None:
    """Print for each shape the CPU milliseconds of a member's step in each way, and its speed against one by one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--widths", default="32,64,128")
    parser.add_argument("--contexts", default="64,128")
    parser.add_argument("--tokens", default="256,2048", help="tokens in a batch of one member")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    widths, contexts, tokens = (
        list(map(int, each.split(","))) for each in (options.widths, options.contexts, options.tokens)
    )
    torch.set_num_threads(1)
    print(f"{MEMBERS} members of {LAYERS} layers, vocabulary {VOCAB}; CPU ms of a member's step, by one thread")
    for shape in ((width, context, batch) for width in widths for context in contexts for batch in tokens):
        check(shape)
        steps = {name: way(shape) for name, way in WAYS.items()}
        times: dict[str, list[float]] = {name: [] for name in WAYS}
        for step in steps.values():
            for _ in range(LEFT_OUT):
                step()
        for _ in range(options.rounds):
            for name, step in steps.items():
                times[name].append(milliseconds(step))
        print(f"d_model {shape[0]}, context {shape[1]}, {shape[2]} tokens")
        for name, values in times.items():
            ratios = [alone / value for value, alone in zip(values, times["one by one"], strict=True)]
            print(f"  {name:11} {median(values):7.2f} ms  {median(ratios):.2f} of the speed of one by one "
                  f"({min(ratios):.2f} to {max(ratios):.2f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
