"""Encoder and decoder: the Transformer of Vaswani et al. 2017.

Notable choices, the paper's: embeddings times sqrt(d_model), sinusoids added to them, a norm after each sum, ReLU,
dropout on what each half of a block adds and on the sum of embeddings and positions (section 5.4), and nowhere else.
Ours, where the paper says nothing: matrices start from Glorot's uniform distribution, embeddings from
N(0, 1 / sqrt(d_model)), so that a token and its position are of one size, and a tied head's logits are near 1.

Masks are built here: padding of the source is seen by nobody, and no target position sees a later one. Padding of a
target comes last, so the second mask covers it.
"""

import math
from collections.abc import Callable, Iterable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmexp.config.models.encdec import EncDecConfig
from lmexp.models.layers import Attention, CrossAttention, KVCache, LayerNorm, padding_mask
from lmexp.models.stacked import stacked_rows


class EncDec(nn.Module):
    """Maps a source text and the target so far to logits over the target's next token.

    Shapes: B pairs, S source positions, T target positions. It is no LanguageModel, for it reads two sequences.
    """

    def __init__(self, config: EncDecConfig) -> None:
        """Raises ValueError when a vocabulary is not resolved, or the two of a shared table differ."""
        super().__init__()
        source_rows, target_rows = config.resolved_vocabularies()
        self.config = config
        self.target_embedding = nn.Embedding(target_rows, config.d_model)
        self.source_embedding = (
            self.target_embedding if config.share_embeddings else nn.Embedding(source_rows, config.d_model)
        )
        self.source_positions = _Positions(config, config.source_context)
        self.target_positions = _Positions(config, config.context)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_layers))
        # Without a norm before each half, the last half's own is the stack's last.
        self.norm_encoder = nn.LayerNorm(config.d_model) if config.pre_norm else nn.Identity()
        self.norm_decoder = nn.LayerNorm(config.d_model) if config.pre_norm else nn.Identity()
        self.head = nn.Linear(config.d_model, target_rows, bias=False)

        stacked = stacked_rows([self])
        for module in self.modules():
            if isinstance(module, nn.Linear):
                for matrix in module.weight.split(stacked.get(id(module.weight), len(module.weight))):
                    nn.init.xavier_uniform_(matrix)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, 0.0, config.d_model**-0.5)
        if config.tie_embeddings:
            self.head.weight = self.target_embedding.weight

    def encode(self, sources: Tensor, source_valid: Tensor | None = None) -> Tensor:
        """Read the sources: (B, S) int64 -> (B, S, C).

        `source_valid` is (B, S) bool, False where a token is padding; None: no padding. Raises ValueError for a
        source longer than the model's.
        """
        x = self.source_embedding(sources) * math.sqrt(self.config.d_model)
        x = self.dropout((x + self.source_positions(0, sources.shape[1])).to(x.dtype))  # (B, S, C)
        mask = padding_mask(source_valid)
        for layer in self.encoder:
            x = layer(x, mask)
        return self.norm_encoder(x)

    def hidden(self, sources: Tensor, source_valid: Tensor | None, inputs: Tensor) -> Tensor:
        """Return what the head reads at every target position: (B, S), (B, S), (B, T) -> (B, T, C).

        `inputs` are the targets, each behind the token that starts it. See `encode`.
        """
        return self._decode(inputs, self.encode(sources, source_valid), padding_mask(source_valid), None)

    def logits(self, hidden: Tensor) -> Tensor:
        """Score every token of the target's vocabulary: (..., C) -> (..., vocab_size)."""
        return self.head(hidden)

    def forward(self, sources: Tensor, source_valid: Tensor | None, inputs: Tensor) -> Tensor:
        """Return logits of the token after each of `inputs`: (B, T, vocab_size); see `hidden`."""
        return self.logits(self.hidden(sources, source_valid, inputs))

    def new_state(self, sources: Tensor, source_valid: Tensor | None, capacity: int | None = None) -> "EncDecState":
        """Read the sources, to write targets of up to `capacity` tokens (the context) to them; see `next_logits`."""
        memory = self.encode(sources, source_valid)
        heads, room = self.config.n_heads, capacity or self.config.context
        buffer = (len(sources), heads, room, self.config.d_model // heads)
        layers = []
        for layer in self.decoder:
            assert isinstance(layer, DecoderLayer)
            keys, values = layer.cross_attention.keys_and_values(memory)
            layers.append(LayerState(KVCache(keys.new_empty(buffer)), keys, values))
        return EncDecState(layers, padding_mask(source_valid))

    def next_logits(self, inputs: Tensor, state: "EncDecState") -> Tensor:
        """Score the token that follows `inputs`, which follow those of the state: (B, T) int64 -> (B, vocab_size).

        Raises ValueError when there is no room for them in the state or the context.
        """
        return self.logits(self._decode(inputs, None, state.mask, state)[:, -1])

    def _decode(
        self, inputs: Tensor, memory: Tensor | None, mask: Tensor | None, state: "EncDecState | None"
    ) -> Tensor:
        start = state.length if state else 0
        x = self.target_embedding(inputs) * math.sqrt(self.config.d_model)
        x = self.dropout((x + self.target_positions(start, start + inputs.shape[1])).to(x.dtype))  # (B, T, C)
        for index, layer in enumerate(self.decoder):
            x = layer(x, memory, mask, state.layers[index] if state else None)
        return self.norm_decoder(x)

    @property
    def width(self) -> int:
        """C, the width of the hidden states."""
        return self.config.d_model

    def layers(self) -> Iterable[nn.Module]:
        """Return the layers of both stacks, in order: what is gathered at a time where processes share the weights."""
        return [*self.encoder, *self.decoder]

    def auxiliary_loss(self) -> None:
        """See LanguageModel.auxiliary_loss: there is none."""
        return None


class LayerState:
    """What one decoder layer keeps: its targets' keys and values so far, and its sources', which never change."""

    def __init__(self, targets: KVCache, source_keys: Tensor, source_values: Tensor) -> None:
        """Those of the sources are (B, H, S, D) each."""
        self.targets, self.source_keys, self.source_values = targets, source_keys, source_values

    def select(self, rows: Tensor) -> None:
        """See DecodingState.select."""
        self.targets.select(rows)
        self.source_keys, self.source_values = self.source_keys[rows], self.source_values[rows]


class EncDecState:
    """What a model keeps of sources it has read, and of targets it is writing: no token is read twice."""

    def __init__(self, layers: list[LayerState], mask: Tensor | None) -> None:
        """`mask` is that of the sources' padding."""
        self.layers, self.mask = layers, mask

    @property
    def length(self) -> int:
        """Target tokens read."""
        return self.layers[0].targets.length

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, filled or not."""
        sources = sum(layer.source_keys.nbytes + layer.source_values.nbytes for layer in self.layers)
        return sources + sum(layer.targets.nbytes for layer in self.layers)

    def select(self, rows: Tensor) -> None:
        """Keep these of the B sequences, in this order, some several times or not at all: (B',) int64."""
        for layer in self.layers:
            layer.select(rows)
        if self.mask is not None:
            self.mask = self.mask[rows]


class _Halves(nn.Module):
    """What encoder and decoder layers share: halves whose results are added to the stream, and a norm for each."""

    def __init__(self, config: EncDecConfig) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        self.attention = Attention(config.d_model, config.n_heads)
        self.norm_attention = LayerNorm(config.d_model)
        self.up = nn.Linear(config.d_model, config.d_feed_forward)
        self.down = nn.Linear(config.d_feed_forward, config.d_model)
        self.norm_feed_forward = LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def before(self, norm: nn.Module, x: Tensor) -> Tensor:
        """Return what a half reads off the stream."""
        return norm(x) if self.pre_norm else x

    def after(self, norm: nn.Module, x: Tensor, result: Tensor) -> Tensor:
        """Return the stream with a half's result added."""
        x = x + self.dropout(result)
        return x if self.pre_norm else norm(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Transform each position by itself (section 3.3): (B, T, C) -> (B, T, C)."""
        result = self.down(F.relu(self.up(self.before(self.norm_feed_forward, x))))
        return self.after(self.norm_feed_forward, x, result)


class EncoderLayer(_Halves):
    """Attention among the source's positions, then feed-forward."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """One layer: (B, S, C), mask (B, 1, 1, S) -> (B, S, C)."""
        x = self.after(self.norm_attention, x, self.attention(self.before(self.norm_attention, x), mask))
        return self.feed_forward(x)


class DecoderLayer(_Halves):
    """Attention to the target so far, then to the source, then feed-forward."""

    def __init__(self, config: EncDecConfig) -> None:
        super().__init__(config)
        self.cross_attention = CrossAttention(config.d_model, config.n_heads)
        self.norm_cross_attention = LayerNorm(config.d_model)

    def forward(self, x: Tensor, memory: Tensor | None, mask: Tensor | None, state: LayerState | None = None) -> Tensor:
        """One layer: (B, T, C), (B, S, C), mask (B, 1, 1, S) -> (B, T, C); with a state, which holds what it takes of
        the memory, that is None."""
        query = self.before(self.norm_attention, x)
        mixed = self.attention(query, is_causal=True, cache=state.targets if state else None)
        x = self.after(self.norm_attention, x, mixed)
        if state is not None:
            keys, values = state.source_keys, state.source_values
        else:
            assert memory is not None
            keys, values = self.cross_attention.keys_and_values(memory)
        query = self.before(self.norm_cross_attention, x)
        x = self.after(self.norm_cross_attention, x, self.cross_attention(query, keys, values, mask))
        return self.feed_forward(x)


class _Positions(nn.Module):
    """A vector for each position: a fixed one, or a learned one."""

    table: Tensor

    def __init__(self, config: EncDecConfig, positions: int) -> None:
        super().__init__()
        if config.positions == "learned":
            # As large as the sinusoids, whose mean square is a half.
            self.table = nn.Parameter(torch.empty(positions, config.d_model).normal_(0.0, math.sqrt(0.5)))
        else:
            self.register_buffer("table", sinusoids(positions, config.d_model), persistent=False)
        self.is_fixed = config.positions == "sinusoidal"

    def forward(self, start: int, end: int) -> Tensor:
        """Return those of a stretch of positions: (end - start, C); fixed ones in float32."""
        if end > len(self.table):
            raise ValueError(f"{end} tokens are more than the {len(self.table)} positions there are")
        return self.table[start:end]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the model to another device; a fixed table stays in float32 where the model goes to another type."""
        super()._apply(fn, recurse)
        if self.is_fixed:
            self.table = sinusoids(*self.table.shape).to(self.table.device)
        return self


def sinusoids(positions: int, width: int) -> Tensor:
    """Return sines and cosines of a position at geometrically growing wavelengths, in turn: (positions, width).

    Vaswani et al. 2017, section 3.5: dimension 2i of position p is sin(p / 10000^(2i / width)), 2i + 1 its cosine.
    """
    # Angles in float64: in float32, position 1000 is off by 6e-5 already.
    wavelengths = 10_000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] / wavelengths
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()
