"""Steps of a continuation that run the same operations on the same addresses: compiled, or recorded as a CUDA graph.

A step over one token is hundreds of small kernels, and the host takes longer to start them than a GPU to run them.
A recorded step starts them all at once. torch.compile makes fewer kernels of them, which read the weights faster.
Both need fixed addresses and shapes; see FixedCache in models/layers.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lmexp.models.base import Cache, Decoder
from lmexp.models.layers import FixedCache, KVCache

Step = Callable[[Tensor], Tensor]
"""Takes the next token of each sequence, (B, 1) int64, and returns the logits of the one after it, (B, 1, V)."""
Pass = Callable[[Tensor, Sequence[FixedCache]], Tensor]
"""Passes tokens, (B, 1) int64, through a model, and returns the logits, (B, 1, V)."""
WARM_UP_STEPS = 3
"""Steps before the recording, which choose kernels and allocate memory, as torch's notes on CUDA graphs ask."""


def decoding_step(model: Decoder, cache: Sequence[Cache], compiled: Pass | None = None) -> Step:
    """Return the step that continues what is in the cache: with fixed addresses where that pays, else the model's own.

    `compiled` is what `compile_step` made of the model. The logits that a step returns are valid until its next call.
    """
    layers = [layer for layer in cache if isinstance(layer, KVCache)]
    has_room = len(layers) == len(cache) and layers[0].length < layers[0].capacity
    if not has_room or not isinstance(model, nn.Module) or not has_fixed_steps(type(model)):
        return lambda tokens: model(tokens, cache, last_only=True)
    if layers[0].keys.is_cuda and _may_be_recorded(model):
        return GraphedStep(layers, compiled or pass_of(model))
    return FixedStep(layers, compiled) if compiled else lambda tokens: model(tokens, cache, last_only=True)


def has_fixed_steps(kind: type) -> bool:
    """Whether a step of a model of this class needs nothing from the host. The class itself must say so: one that is
    derived from GPT or Llama may compute positions on the host."""
    return bool(vars(kind).get("has_fixed_steps", False))


class CannotCompile(RuntimeError):
    """torch.compile cannot compile a model's step here."""


def compile_step(model: nn.Module) -> Pass:
    """Return the pass of a step, which is compiled as a whole when it is first called.

    On a GPU, `coordinate_descent_tuning` makes torch generate a kernel for each product with a single vector. Its
    authors say that these products do not reach the peak bandwidth without it (torch/_inductor/decomposition.py, `mm`).

    The first call raises CannotCompile for a model that torch cannot compile, and where a compiler is missing.
    """
    from torch._dynamo.exc import TorchDynamoException  # imports for a second, which only compiling needs

    torch.compiler.reset()  # otherwise a ninth shape or model would run without being compiled
    options: dict[str, Any] = {"coordinate_descent_tuning": True}
    forward = torch.compile(pass_of(model), fullgraph=True, dynamic=False, options=options)

    def compiled(tokens: Tensor, layers: Sequence[FixedCache]) -> Tensor:
        try:
            return forward(tokens, layers)
        except TorchDynamoException as problem:
            raise CannotCompile(f"torch.compile failed: {str(problem).strip().partition(chr(10))[0]}") from problem

    return compiled


def pass_of(model: nn.Module) -> Pass:
    """Return the pass of a step as the model makes it."""
    return lambda tokens, layers: model(tokens, layers, last_only=True)


def _may_be_recorded(model: nn.Module) -> bool:
    """Whether a CUDA graph may be made of a step: one with quantised weights might need something from the host."""
    return all(type(weight.data) is Tensor for weight in model.parameters())


class FixedStep:
    """A step whose position is a tensor on the device: each call runs the same operations on the same addresses."""

    def __init__(self, cache: Sequence[KVCache], forward: Pass) -> None:
        """`cache` has all layers, which have read the prompt; the step takes over its buffers."""
        length, keys = cache[0].length, cache[0].keys
        self._left = cache[0].capacity - length
        self._forward = forward
        self._tokens = torch.zeros((len(keys), 1), dtype=torch.int64, device=keys.device)
        self._position = torch.tensor([length], device=keys.device)
        self._layers = [FixedCache(layer, self._position) for layer in cache]

    def __call__(self, tokens: Tensor) -> Tensor:
        """Read the next token of each sequence, (B, 1); see Step. Raises ValueError when the cache is full."""
        if not self._left:
            raise ValueError(f"the cache's {self._layers[0].length} tokens are used up")
        self._tokens.copy_(tokens)
        logits = self.run()
        self._position += 1
        self._left -= 1
        return logits

    def run(self) -> Tensor:
        """Pass the tokens through the model, at the position."""
        return self._forward(self._tokens, self._layers)


class GraphedStep(FixedStep):
    """The same, replayed from a CUDA graph."""

    def __init__(self, cache: Sequence[KVCache], forward: Pass) -> None:
        super().__init__(cache, forward)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_STEPS):
                super().run()  # writes where the next token's keys and values will be
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = super().run()

    def run(self) -> Tensor:
        """See FixedStep."""
        self.graph.replay()
        return self.logits
