"""Recurrent encoder-decoder: an LSTM reads the source, another writes the target and attends to the source.

This is the global attention of Luong et al. 2015 (section 3.1, score "general"), without their input feeding, so that
all positions of a target are trained in one pass: with h_t the decoder's state, m_s what the encoder gave out at source
position s, and softmax over the positions that are no padding,

    a_ts = softmax_s(h_t^T W_a m_s),    c_t = sum_s a_ts m_s,    h~_t = tanh(W_c [c_t; h_t]),

and the head reads h~_t. Both stacks read from left to right, so padding, which comes last, changes no state before it.
The decoder starts from the encoder's output at the source's last token, through a layer and a tanh, as in Bahdanau et
al. 2015 (appendix A.2.2); its cells start empty. Luong et al. hand over all states, but in a padded batch those after
the last token are not at hand. Dropout lies on what goes between layers and never along time (Zaremba et al. 2014).
Initial weights are those of the LSTM; see models/lstm.py.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmexp.config.models.lstm_encdec import LSTMEncDecConfig
from lmexp.models.layers import padding_mask
from lmexp.models.lstm import draw_weights


class LSTMEncDec(nn.Module):
    """Maps a source text and the target so far to logits over the target's next token.

    Shapes: B pairs, S source positions, T target positions, L layers. It is no LanguageModel, for it reads two
    sequences.
    """

    def __init__(self, config: LSTMEncDecConfig) -> None:
        """Raises ValueError when a vocabulary is not resolved, or the two of a shared table differ."""
        super().__init__()
        source_rows, target_rows = config.resolved_vocabularies()
        layers, width = config.n_layers, config.d_model
        self.config = config
        self.target_embedding = nn.Embedding(target_rows, width)
        self.source_embedding = self.target_embedding if config.share_embeddings else nn.Embedding(source_rows, width)
        between = config.dropout if layers > 1 else 0.0  # torch warns about one that does nothing
        self.encoder = nn.LSTM(width, width, layers, batch_first=True, dropout=between)
        self.decoder = nn.LSTM(width, width, layers, batch_first=True, dropout=between)
        self.start = nn.Linear(width, layers * width)
        self.key = nn.Linear(width, width, bias=False)  # W_a
        self.mix = nn.Linear(2 * width, width, bias=False)  # W_c
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(width, target_rows, bias=False)
        draw_weights(self, width)
        if config.tie_embeddings:
            self.head.weight = self.target_embedding.weight

    def hidden(self, sources: Tensor, source_valid: Tensor | None, inputs: Tensor) -> Tensor:
        """Return what the head reads at every target position: (B, S), (B, S), (B, T) -> (B, T, C).

        `inputs` are the targets, each behind the token that starts it. `source_valid` is bool, False where a token is
        padding, which comes last; None: no padding. Raises ValueError for a longer source or target than the model's.
        """
        return self._decode(inputs, self.new_state(sources, source_valid))

    def logits(self, hidden: Tensor) -> Tensor:
        """Score every token of the target's vocabulary: (..., C) -> (..., vocab_size)."""
        return self.head(hidden)

    def forward(self, sources: Tensor, source_valid: Tensor | None, inputs: Tensor) -> Tensor:
        """Return logits of the token after each of `inputs`: (B, T, vocab_size); see `hidden`."""
        return self.logits(self.hidden(sources, source_valid, inputs))

    def new_state(self, sources: Tensor, source_valid: Tensor | None, capacity: int | None = None) -> "LSTMEncDecState":
        """Read the sources, to write targets to them; see `next_logits`. A state of any `capacity` is of one size."""
        _check_length(sources.shape[1], self.config.source_context, "source")
        memory, _ = self.encoder(self.dropout(self.source_embedding(sources)))  # (B, S, C)
        if source_valid is None:
            last = memory[:, -1]
        else:
            place = source_valid.sum(1).clamp(min=1) - 1
            last = memory[torch.arange(len(memory), device=memory.device), place]
        hidden = torch.tanh(self.start(last)).unflatten(1, (self.config.n_layers, -1)).transpose(0, 1).contiguous()
        return LSTMEncDecState(hidden, self.key(memory), memory, padding_mask(source_valid))

    def next_logits(self, inputs: Tensor, state: "LSTMEncDecState") -> Tensor:
        """Score the token that follows `inputs`, which follow those of the state: (B, T) int64 -> (B, vocab_size).

        Raises ValueError when they are more than the model's context.
        """
        return self.logits(self._decode(inputs, state)[:, -1])

    def _decode(self, inputs: Tensor, state: "LSTMEncDecState") -> Tensor:
        end = state.length + inputs.shape[1]
        _check_length(end, self.config.context, "target")
        x, (state.hidden, state.cell) = self.decoder(
            self.dropout(self.target_embedding(inputs)), (state.hidden, state.cell)
        )  # (B, T, C)
        state.length = end
        # Attention of one head, whose scores Luong et al. do not divide by anything.
        keys, values = state.keys[:, None], state.memory[:, None]
        context = F.scaled_dot_product_attention(x[:, None].to(keys.dtype), keys, values, state.mask, scale=1.0)
        return self.dropout(torch.tanh(self.mix(torch.cat([context[:, 0], x], dim=-1))))

    @property
    def width(self) -> int:
        """C, the width of the hidden states."""
        return self.config.d_model

    def layers(self) -> Iterable[nn.Module]:
        """Return both stacks; torch has the layers of each in one module."""
        return [self.encoder, self.decoder]

    def auxiliary_loss(self) -> None:
        """See LanguageModel.auxiliary_loss: there is none."""
        return None


class LSTMEncDecState:
    """What a model keeps of B sources it has read, and of targets it is writing: no token is read twice."""

    def __init__(self, hidden: Tensor, keys: Tensor, memory: Tensor, mask: Tensor | None) -> None:
        """`hidden` is the decoder's first state, (L, B, C); keys and memory, (B, S, C), are those of the sources."""
        self.hidden, self.cell = hidden, torch.zeros_like(hidden)
        self.keys, self.memory, self.mask = keys, memory, mask
        self.length = 0
        """Target tokens read."""

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return sum(part.nbytes for part in (self.hidden, self.cell, self.keys, self.memory))

    def select(self, rows: Tensor) -> None:
        """See DecodingState.select."""
        self.hidden, self.cell = self.hidden[:, rows], self.cell[:, rows]
        self.keys, self.memory = self.keys[rows], self.memory[rows]
        if self.mask is not None:
            self.mask = self.mask[rows]


def _check_length(length: int, most: int, what: str) -> None:
    if length > most:
        raise ValueError(f"a {what} of {length} tokens is longer than the model's {most}")
