"""The recurrent encoder-decoder's section."""

from typing import ClassVar, Literal

from pydantic import Field

from lmexp.config.models.base import WIDE, Dropout
from lmexp.config.models.count import LabelHead, ModelCount, whole
from lmexp.config.models.lstm import lstm_backward_bytes, lstm_workspace
from lmexp.config.models.pairs import PairSection


class LSTMEncDecConfig(PairSection):
    """Two stacked LSTMs with attention between them (Luong et al. 2015); `n_layers` are those of each stack.

    `dropout` lies between layers, before the first and after the last (Zaremba et al. 2014).
    """

    has_separate_layers: ClassVar[bool] = False
    shape: ClassVar[tuple[str, ...]] = ("n_layers", "d_model")

    target: Literal["lmexp.models.lstm_encdec.LSTMEncDec"] = Field(alias="_target_")
    family: Literal["lstm_encdec"] = "lstm_encdec"
    n_heads: None = None
    dropout: Dropout = 0.1

    def count(self, labels: LabelHead | None) -> ModelCount:
        """See ModelSection.count; a token is a position of either stack."""
        if labels:
            raise ValueError("an encoder-decoder predicts tokens, not labels")
        layers, width, vocab = self.n_layers, self.d_model, self.vocab_size or 0
        source, target = self.source_context, self.context
        stack, square = layers * 8 * width * width, width * width
        embedding = self.table_params()
        # Two biases a gate in each stack, and those of the layer that makes the decoder's first state.
        biases = 2 * layers * 8 * width + layers * width
        matrices = 2 * stack + layers * square + 3 * square  # and W_a, W_c
        total = embedding + matrices + biases + (0 if self.tie_embeddings else vocab * width)
        sequence: dict[str, float] = {  # training FLOPs of one pair
            # No gradient goes into the empty state that a source starts from: one product of 2 * 4 C C less a layer.
            "encoder_recurrence": 6 * stack * source - layers * 8 * square,
            "start": 6 * layers * square,
            "recurrence": 6 * stack * target,
            "cross_projections": 6 * square * source + 6 * 2 * square * target,
            "cross_scores": 12 * width * source * target,
            "head": 6 * vocab * width * target,
        }
        return ModelCount(
            n_params=total,
            n_params_active=total,
            n_params_embedding=embedding,
            n_params_matmul=matrices + vocab * width,
            parts={name: whole(flops / self.sequence_tokens) for name, flops in sequence.items()},
        )

    def saved_bytes(self, value: int, stream: int, on_cpu: bool) -> int:
        """See ModelSection.saved_bytes."""
        width, layers = self.d_model, self.n_layers
        mask = width * (value if on_cpu else 1) if self.dropout else 0
        dropped = width * stream + width * (stream if on_cpu else 1) if self.dropout else 0
        stack = layers * (lstm_workspace(width, value, on_cpu) + width * value) + width * value + (layers - 1) * mask
        source = stack + dropped + width * value  # keys
        target = stack + dropped + 5 * width * value + WIDE  # a mixture, it beside the state, tanh, and what is dropped
        return self.source_context * source + self.context * target

    def backward_bytes(self, sequences: int, value: int, on_cpu: bool) -> int:
        """See ModelSection.backward_bytes; one stack at a time."""
        longer = max(self.source_context, self.context)
        return lstm_backward_bytes(sequences * longer * self.d_model, self.n_layers, value, on_cpu)
