"""The gradient of each sequence of a batch, clipped and added up, without holding one gradient for each sequence.

Differentially private training bounds what each sequence adds to a step. For that it needs the norm of each sequence's
gradient, and the sum of the gradients, each scaled down to a bound on its norm. Hooks keep what goes into each layer
with weights, and one backward pass gives the gradients of what comes out of it. From these two follow

- the norms: the gradient of a matrix is a sum over positions of outer products, and its squared norm follows from the
  products of positions with each other ("ghost norm": Li et al. 2022, arXiv 2110.05679, section 4.1), or from the
  gradient itself where that is less work (Bu et al. 2022, arXiv 2205.10683, section 3.2);
- the clipped sum, in which each outer product is weighed by its sequence's factor, so that no second backward pass is
  needed ("book-keeping": Bu et al. 2023, arXiv 2210.00038, section 2).

Opacus has hooks for ghost clipping too. They are not used, because they refuse an embedding and a head that share
weights, take the positions of a learned position embedding for sequences, do not support torch.nn.LSTM, and drop the
gradients of earlier micro-batches. Shapes: B sequences, T positions, a matrix of R rows and C columns.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmexp.errors import UserError

SMALL = 1e-6
"""Added to a norm before it divides, as Opacus does; it makes the clipped norm less than the bound."""


@dataclass(frozen=True)
class Outer:
    """The gradient of a matrix for each sequence: the sum over positions of `rows` times `columns`, transposed."""

    rows: Tensor
    """(B, T, R). For a lookup, whose rows are one-hot, only the index of each 1: (B, T) int64."""
    columns: Tensor
    """(B, T, C)."""

    def products(self, other: "Outer") -> Tensor:
        """Return the product of each position with each of the other's, summed over rows and columns: (B,)."""
        return (_products_of_rows(self.rows, other.rows) * (self.columns @ other.columns.mT)).sum((1, 2))

    def whole(self, n_rows: int) -> Tensor:
        """Return each sequence's gradient: (B, R, C)."""
        if self.rows.ndim == 3:
            return self.rows.mT @ self.columns
        samples, _, n_columns = self.columns.shape
        places = self.rows + n_rows * torch.arange(samples, device=self.rows.device)[:, None]
        table = self.columns.new_zeros(samples * n_rows, n_columns)
        return table.index_add_(0, places.flatten(), self.columns.flatten(0, 1)).view(samples, n_rows, n_columns)

    def weighted_sum(self, factors: Tensor, like: Tensor) -> Tensor:
        """Return the sum over sequences, each times its factor: (B,) -> (R, C)."""
        columns = (self.columns * factors[:, None, None]).flatten(0, 1)
        if self.rows.ndim == 2:
            return torch.zeros_like(like, dtype=columns.dtype).index_add_(0, self.rows.flatten(), columns)
        return self.rows.flatten(0, 1).mT @ columns


def _products_of_rows(one: Tensor, other: Tensor) -> Tensor:
    """Return the products of the rows of positions: (B, T, R) and (B, S, R), or their places -> (B, T, S)."""
    if one.ndim == 2 and other.ndim == 2:
        return (one[:, :, None] == other[:, None, :]).to(torch.float32)
    if one.ndim == 2:
        return _products_of_rows(other, one).mT
    if other.ndim == 2:
        return one.gather(2, other[:, None, :].expand(-1, one.shape[1], -1))
    return one @ other.mT


Part = tuple[Tensor, Outer | Tensor]
"""What one use of a weight adds to its gradient for each sequence; of a vector, the gradients themselves: (B, n)."""


def _of_linear(layer: nn.Linear, x: Tensor, gradient: Tensor) -> Iterator[Part]:
    yield layer.weight, Outer(gradient, x)
    if layer.bias is not None:
        yield layer.bias, gradient.sum(1)


def _of_embedding(layer: nn.Embedding, tokens: Tensor, gradient: Tensor) -> Iterator[Part]:
    yield layer.weight, Outer(tokens, gradient)


def _of_layer_norm(layer: nn.LayerNorm, x: Tensor, gradient: Tensor) -> Iterator[Part]:
    yield layer.weight, (F.layer_norm(x, layer.normalized_shape, eps=layer.eps) * gradient).flatten(1, -2).sum(1)
    if layer.bias is not None:
        yield layer.bias, gradient.flatten(1, -2).sum(1)


def _of_rms_norm(layer: nn.RMSNorm, x: Tensor, gradient: Tensor) -> Iterator[Part]:
    yield layer.weight, (F.rms_norm(x, layer.normalized_shape, eps=layer.eps) * gradient).flatten(1, -2).sum(1)


OF_LAYERS: dict[type[nn.Module], Callable[[Any, Tensor, Tensor], Iterator[Part]]] = {
    nn.Linear: _of_linear,
    nn.Embedding: _of_embedding,
    nn.LayerNorm: _of_layer_norm,
    nn.RMSNorm: _of_rms_norm,
}
"""By the kind of a layer, what gives the gradients of its weights for each sequence.

Each takes the layer, what goes into it and the gradient of what comes out, both with a dimension of sequences first.
"""


@dataclass(frozen=True)
class _Use:
    """One use of a layer in a forward pass."""

    output: Tensor
    """What the backward pass gives the gradient of."""
    parts: Callable[[Tensor], Iterator[Part]]
    """Takes that gradient."""


class SampleGradients:
    """Clips the gradients of the sequences of a batch, and adds them up in the weights' `grad`."""

    def __init__(self, model: nn.Module) -> None:
        """Put hooks on the model's layers, which do nothing outside of `recording`.

        Raises UserError for a layer whose gradients for each sequence are not known.
        """
        self._uses: list[_Use] = []
        self._samples: int | None = None
        """Sequences of the batch that passes through the model; None while nothing is recorded."""
        for name, layer in model.named_modules():
            if not any(weight.requires_grad for weight in layer.parameters(recurse=False)):
                continue
            if isinstance(layer, nn.LSTM) and layer.batch_first and not (layer.bidirectional or layer.proj_size):
                self._unroll(layer)
                continue
            parts = next((parts for kind, parts in OF_LAYERS.items() if isinstance(layer, kind)), None)
            if parts is None:
                raise UserError(
                    f"privacy.epsilon does not know the layer {name} of the model, a {type(layer).__name__}"
                )
            if isinstance(layer, nn.Embedding):
                layer.register_forward_pre_hook(self._for_each_sequence)
            layer.register_forward_hook(self._record(parts))

    @contextmanager
    def recording(self, samples: int) -> Iterator[None]:
        """Keep what `add_clipped` needs of a forward pass over so many sequences."""
        self._samples = samples
        try:
            yield
        finally:
            self._samples = None

    def add_clipped(self, losses: Tensor, bound: float) -> Tensor:
        """Add the sum of the sequences' gradients, each scaled down to a norm of `bound`, to the weights' `grad`.

        Args:
            losses: of each sequence, from the forward pass that was recorded last: (B,).

        Returns the norms before that: (B,).
        """
        uses, self._uses = self._uses, []
        gradients = torch.autograd.grad(losses.sum(), [use.output for use in uses])
        with torch.no_grad():
            by_weight: dict[Tensor, list[Outer | Tensor]] = {}
            for use, gradient in zip(uses, gradients, strict=True):
                for weight, part in use.parts(gradient.float()):
                    by_weight.setdefault(weight, []).append(part)
            norms = sum((_squared_norms(weight, parts) for weight, parts in by_weight.items()), start=losses * 0).sqrt()
            factors = (bound / (norms + SMALL)).clamp(max=1.0)
            for weight, parts in by_weight.items():
                for part in parts:
                    clipped = part.weighted_sum(factors, weight) if isinstance(part, Outer) else factors @ part
                    weight.grad = clipped.to(weight.dtype) if weight.grad is None else weight.grad + clipped
        return norms

    def _record(self, parts: Callable[[Any, Tensor, Tensor], Iterator[Part]]) -> Callable[..., None]:
        """Return the hook that keeps a use of a layer."""

        def hook(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            if self._samples is not None:
                x = given[0].detach()
                x = x.float() if x.is_floating_point() else x
                self._uses.append(_Use(output, lambda gradient: parts(layer, x, gradient)))

        return hook

    def _for_each_sequence(self, layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Give positions, which all sequences of a batch share, a dimension of sequences: (T,) -> (B, T)."""
        if self._samples is None or given[0].ndim > 1:
            return None
        return (given[0].expand(self._samples, -1), *given[1:])

    def _unroll(self, lstm: nn.LSTM) -> None:
        """Let a stack of LSTMs, while recording, compute step by step, where the gradients of its gates are seen."""
        fused = lstm.forward

        def forward(x: Tensor, before: Any = None) -> Any:
            if self._samples is None:
                return fused(x, before)
            assert before is None, "training begins with an empty state"
            return unrolled(lstm, x, self._uses)

        lstm.forward = forward  # type: ignore[method-assign, assignment]


def _squared_norms(weight: Tensor, parts: list[Outer | Tensor]) -> Tensor:
    """Return the squared norm of the gradient of a weight for each sequence; its uses add up before the norm: (B,)."""
    vectors = [part for part in parts if isinstance(part, Tensor)]
    if vectors:
        assert len(vectors) == len(parts), "a weight is a matrix in all of its uses, or in none"
        return torch.stack(vectors).sum(0).square().sum(1)
    outers = [part for part in parts if isinstance(part, Outer)]
    n_rows, n_columns = weight.shape
    if max(outer.columns.shape[1] for outer in outers) * (n_rows + n_columns) >= n_rows * n_columns:
        return torch.stack([outer.whole(n_rows) for outer in outers]).sum(0).square().sum((1, 2))  # less work
    norms = torch.stack([outer.products(outer) for outer in outers]).sum(0)
    for index, outer in enumerate(outers):
        for other in outers[:index]:
            norms = norms + 2 * outer.products(other)
    return norms.clamp(min=0)  # rounding may leave a tiny number below 0


def unrolled(lstm: nn.LSTM, x: Tensor, uses: list[_Use]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return what a stack of LSTMs returns for sequences that begin with an empty state, and add its layers to `uses`.

    It equals torch's own, which does not give out the gradients of its gates: x is (B, T, I), the result (B, T, C) and
    the states after the last position, (L, B, C) each.
    """
    states = []
    for layer in range(lstm.num_layers):
        of_input, of_hidden, bias, second_bias = (
            getattr(lstm, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        gates = F.linear(x, of_input, bias + second_bias)  # (B, T, 4 C): input, forget, cell and output gate
        hidden = cell = x.new_zeros(len(x), lstm.hidden_size)
        outputs = []
        for now in gates.unbind(1):
            enters, keeps, new, leaves = (now + F.linear(hidden, of_hidden)).chunk(4, -1)
            cell = keeps.sigmoid() * cell + enters.sigmoid() * new.tanh()
            hidden = leaves.sigmoid() * cell.tanh()
            outputs.append(hidden)
        states.append((hidden, cell))
        output = torch.stack(outputs, 1)  # (B, T, C)
        before = F.pad(output.detach()[:, :-1], (0, 0, 1, 0))  # what each position finds: that of the one before it
        weights = (of_input, of_hidden, bias, second_bias)
        uses.append(_use_of_gates(gates, weights, x.detach().float(), before.float()))
        x = F.dropout(output, lstm.dropout, lstm.training) if layer + 1 < lstm.num_layers else output
    hiddens, cells = zip(*states, strict=True)
    return x, (torch.stack(hiddens), torch.stack(cells))


def _use_of_gates(gates: Tensor, weights: tuple[nn.Parameter, ...], x: Tensor, before: Tensor) -> _Use:
    """Return the use of a layer of an LSTM: (B, T, 4 C), its weights, and what they multiply."""
    of_input, of_hidden, bias, second_bias = weights

    def parts(gradient: Tensor) -> Iterator[Part]:
        yield of_input, Outer(gradient, x)
        yield of_hidden, Outer(gradient[:, 1:], before[:, 1:])  # the first position finds an empty state
        yield bias, gradient.sum(1)
        yield second_bias, gradient.sum(1)

    return _Use(gates, parts)
