"""The steps of a continuation as a CUDA graph: recorded once, then replayed for each further token.

A step over one token is hundreds of small kernels, and the host takes longer to start them than a GPU to run them.
Replayed, they start as one. A graph needs fixed addresses and shapes, so the position of the next token is a tensor
on the device, and attention reads the whole buffer of keys and values, with a mask over what is not filled yet.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lmexp.models.base import Cache, Decoder, LanguageModel
from lmexp.models.layers import KVCache

Step = Callable[[Tensor], Tensor]
"""Takes the next token of each sequence, (B, 1) int64, and returns the logits of the one after it, (B, 1, V)."""
WARM_UP_STEPS = 3
"""Steps before the recording, which choose kernels and allocate memory, as torch's notes on CUDA graphs ask."""


def decoding_step(model: Decoder, cache: Sequence[Cache]) -> Step:
    """Return the step that continues what is in the cache: replayed if that works, else the model's own.

    The logits that it returns are valid until its next call.
    """
    layers = [layer for layer in cache if isinstance(layer, KVCache)]
    has_room = len(layers) == len(cache) and layers[0].length < layers[0].capacity
    if has_room and layers[0].keys.is_cuda and isinstance(model, LanguageModel) and _may_be_recorded(model):
        return GraphedStep(model, layers)
    return lambda tokens: model(tokens, cache, last_only=True)


def _may_be_recorded(model: LanguageModel) -> bool:
    """Whether a step needs nothing from the host; a step with quantised weights might.

    The class itself must say so: one that is derived from GPT or Llama may compute positions on the host.
    """
    says_so = vars(type(model)).get("has_fixed_steps", False)
    return says_so and all(type(weight.data) is Tensor for weight in model.parameters())


class FixedStep:
    """A step whose position is a tensor on the device: each call runs the same operations on the same addresses."""

    def __init__(self, model: LanguageModel, layers: Sequence[KVCache]) -> None:
        """`layers` are the caches of all layers; their prompt has been read."""
        self.model, self.layers = model, layers
        keys = layers[0].keys
        self.tokens = torch.zeros((len(keys), 1), dtype=torch.int64, device=keys.device)
        self.position = torch.tensor([layers[0].length], device=keys.device)
        for layer in layers:
            layer.fix(self.position)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Read the next token of each sequence, (B, 1); see Step. Raises ValueError when the cache is full."""
        if self.layers[0].length >= self.layers[0].capacity:
            raise ValueError(f"the cache's {self.layers[0].capacity} tokens are used up")
        self.tokens.copy_(tokens)
        logits = self.run()
        self.position += 1
        for layer in self.layers:
            layer.length += 1
        return logits

    def run(self) -> Tensor:
        """Pass `self.tokens` through the model, at `self.position`."""
        return self.model(self.tokens, self.layers, last_only=True)


class GraphedStep(FixedStep):
    """The same, replayed from a CUDA graph."""

    def __init__(self, model: LanguageModel, layers: Sequence[KVCache]) -> None:
        super().__init__(model, layers)
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
