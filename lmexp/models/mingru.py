"""minGRU: a recurrent language model that is trained in parallel (Feng et al. 2024, "Were RNNs all we needed?").

Notable choices: pre-norm blocks as a Transformer's, with the recurrence in place of attention; gate z and candidate h~
depend on the input alone, h_t = (1 - z_t) h_{t-1} + z_t h~_t; the recurrence is computed in float32, by a scan that
doubles its reach in each round (Hillis and Steele 1986), and not in the logarithms of the paper, which a candidate
below 0 does not have. There are no positions, for the state knows the order, and no biases. Weights start as GPT's.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmexp.config.models.mingru import MinGRUConfig
from lmexp.models.base import Cache, LanguageModel
from lmexp.models.layers import RMSNorm, init_normal


class MinGRUState:
    """What one layer keeps of the tokens seen so far: one vector a sequence, however many tokens they were."""

    def __init__(self, hidden: Tensor) -> None:
        """`hidden` is the state before the first token, (B, C)."""
        self.hidden = hidden
        self.length = 0
        """Tokens seen."""

    @property
    def nbytes(self) -> int:
        """Bytes of the vector."""
        return self.hidden.nbytes


class Recurrence(nn.Module):
    """A minimal gated recurrent unit: each channel is a weighted mean of what it has been offered so far."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_model, bias=False)
        self.candidate = nn.Linear(d_model, d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor, state: MinGRUState | None) -> Tensor:
        """Mix positions, and the state into them: (B, T, C) -> (B, T, C)."""
        forget = torch.sigmoid(-self.gate(x).float())  # 1 - z
        offered = (1 - forget) * self.candidate(x).float()
        if state is not None:
            offered = torch.cat([offered[:, :1] + forget[:, :1] * state.hidden[:, None], offered[:, 1:]], dim=1)
        hidden = scan(forget, offered)
        if state is not None:
            state.hidden, state.length = hidden[:, -1], state.length + x.shape[1]
        return self.out(hidden.to(x.dtype))


def scan(forget: Tensor, offered: Tensor) -> Tensor:
    """Return h with h_t = forget_t h_{t-1} + offered_t and h_{-1} = 0, for all t at once: (B, T, C) each -> (B, T, C).

    After the round with stride s, h_t has what was offered at the last 2 s positions, and forget_t their product.
    """
    length, stride = offered.shape[1], 1
    while stride < length:
        later = forget[:, stride:]
        offered = torch.cat([offered[:, :stride], offered[:, stride:] + later * offered[:, :-stride]], dim=1)
        forget = torch.cat([forget[:, :stride], later * forget[:, :-stride]], dim=1)
        stride *= 2
    return offered


class MinGRUBlock(nn.Module):
    """A pre-norm block: the recurrence, then feed-forward, each added to the stream."""

    def __init__(self, config: MinGRUConfig) -> None:
        super().__init__()
        self.norm_recurrence = RMSNorm(config.d_model, config.norm_eps)
        self.recurrence = Recurrence(config.d_model)
        self.norm_feed_forward = RMSNorm(config.d_model, config.norm_eps)
        self.up = nn.Linear(config.d_model, config.d_feed_forward, bias=False)
        self.down = nn.Linear(config.d_feed_forward, config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, state: MinGRUState | None) -> Tensor:
        """One layer: (B, T, C) -> (B, T, C)."""
        x = x + self.dropout(self.recurrence(self.norm_recurrence(x), state))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm_feed_forward(x)))))


class MinGRU(LanguageModel):
    """A language model that maps tokens to logits over the next token.

    Weights are drawn from torch's global generator: seed it for a model that can be made again.
    """

    config: MinGRUConfig

    def __init__(self, config: MinGRUConfig) -> None:
        super().__init__(config)
        self.token_embedding = nn.Embedding(self.vocab_size, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(MinGRUBlock(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = nn.Linear(config.d_model, self.vocab_size, bias=False)

        init_normal(self)
        residual_std = 0.02 / math.sqrt(2 * config.n_layers)
        for name, weight in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                nn.init.normal_(weight, 0.0, residual_std)
        if config.tie_embeddings:
            self.head.weight = self.token_embedding.weight

    def hidden(self, tokens: Tensor, cache: Sequence[Cache] | None = None, valid: Tensor | None = None) -> Tensor:
        """See LanguageModel.hidden; what is padding comes last, where no other position sees it."""
        self.first_position(tokens, cache)
        x = self.dropout(self.token_embedding(tokens))  # (B, T, C)
        states = [state for state in cache or () if isinstance(state, MinGRUState)]
        for index, block in enumerate(self.blocks):
            x = block(x, states[index] if states else None)
        return self.norm(x)

    def new_cache(self, batch: int, capacity: int | None = None) -> list[MinGRUState]:
        """Return the state of `batch` sequences before their first token, one entry a layer; any `capacity` fits it."""
        like = self.token_embedding.weight
        empty = like.new_zeros((batch, self.config.d_model), dtype=torch.float32, requires_grad=False)
        return [MinGRUState(empty) for _ in range(self.config.n_layers)]
