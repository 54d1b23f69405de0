"""LSTM: the recurrent language model that Transformers replaced.

Notable choices: torch's own stack (Hochreiter and Schmidhuber 1997, with forget gates), dropout on what goes between
layers and never along time (Zaremba et al. 2014, section 3), head tied to the embedding unless asked otherwise (Press
and Wolf 2017). Matrices and embedding start uniform in +-1 / sqrt(d_model), torch's habit for such stacks; biases at 0,
but for the forget gates at 1, so that a state is kept until there is a reason not to (Jozefowicz et al. 2015).
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from lmexp.config.models.lstm import LSTMConfig
from lmexp.models.base import Cache, LanguageModel


class LSTMState:
    """What one layer keeps of the tokens seen so far: two vectors a sequence, however many tokens they were."""

    def __init__(self, hidden: Tensor) -> None:
        """`hidden` is the state before the first token, (B, C); one like it is the cell's."""
        self.hidden, self.cell = hidden, torch.zeros_like(hidden)
        self.length = 0
        """Tokens seen."""

    @property
    def nbytes(self) -> int:
        """Bytes of both vectors."""
        return self.hidden.nbytes + self.cell.nbytes


class LSTM(LanguageModel):
    """A language model that maps tokens to logits over the next token, one token after another.

    Weights are drawn from torch's global generator: seed it for a model that can be made again.
    """

    config: LSTMConfig

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        width, embedded = config.d_model, config.embedding_width
        self.embedding = nn.Embedding(self.vocab_size, embedded)
        self.dropout_embedding = nn.Dropout(config.dropout_embedding)
        between = config.dropout if config.n_layers > 1 else 0.0  # torch warns about one that does nothing
        self.lstm = nn.LSTM(embedded, width, config.n_layers, batch_first=True, dropout=between)
        self.dropout_output = nn.Dropout(config.dropout_output)
        is_bridged = config.tie_embeddings and embedded != width
        self.projection = nn.Linear(width, embedded, bias=False) if is_bridged else nn.Identity()
        self.head = nn.Linear(embedded if config.tie_embeddings else width, self.vocab_size, bias=False)

        draw_weights(self, width)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight

    def hidden(self, tokens: Tensor, cache: Sequence[Cache] | None = None, valid: Tensor | None = None) -> Tensor:
        """See LanguageModel.hidden; what is padding comes last, where no other position sees it."""
        end = self.first_position(tokens, cache) + tokens.shape[1]
        states = [layer for layer in cache or () if isinstance(layer, LSTMState)]
        before = None
        if states:
            before = torch.stack([s.hidden for s in states]), torch.stack([s.cell for s in states])  # (L, B, C) each
        x, (hidden, cell) = self.lstm(self.dropout_embedding(self.embedding(tokens)), before)  # (B, T, C)
        for index, state in enumerate(states):
            state.hidden, state.cell, state.length = hidden[index], cell[index], end
        return self.dropout_output(x)

    def features(self, hidden: Tensor) -> Tensor:
        """See LanguageModel.features."""
        return self.projection(hidden)

    def drop_head(self) -> None:
        """See LanguageModel.drop_head."""
        del self.projection, self.head

    def layers(self) -> Iterable[nn.Module]:
        """See LanguageModel.layers; torch has the whole stack in one module."""
        return [self.lstm]

    def new_cache(self, batch: int, capacity: int | None = None) -> list[LSTMState]:
        """Return the state of `batch` sequences before their first token, one entry a layer; any `capacity` fits it."""
        like = self.embedding.weight
        empty = like.new_zeros((batch, self.config.d_model), requires_grad=False)
        return [LSTMState(empty) for _ in range(self.config.n_layers)]


def draw_weights(model: nn.Module, width: int) -> None:
    """Draw the initial weights of a model of LSTMs of this width, in place; see the head of this file."""
    for name, weight in model.named_parameters():
        if "bias" in name:
            nn.init.zeros_(weight)
        else:
            nn.init.uniform_(weight, -1 / math.sqrt(width), 1 / math.sqrt(width))
        if "bias_ih" in name:  # of input, forget, cell and output gate; the other bias of each is added to it
            nn.init.ones_(weight.data[width : 2 * width])
