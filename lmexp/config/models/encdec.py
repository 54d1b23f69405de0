"""The encoder-decoder's section."""

from typing import Literal

from pydantic import Field

from lmexp.config.models.base import WIDE, Dropout, TransformerSection
from lmexp.config.models.count import LabelHead, ModelCount, whole
from lmexp.config.models.pairs import PairSection
from lmexp.errors import UserError


class EncDecConfig(TransformerSection, PairSection):
    """Encoder and decoder, the Transformer of Vaswani et al. 2017; `n_layers` are those of each stack.

    In the paper's words: N, d_model, h, d_ff, P_drop. Section 3.4 shares both tables, and the head with the target's.
    """

    target: Literal["lmexp.models.encdec.EncDec"] = Field(alias="_target_")
    family: Literal["encdec"] = "encdec"
    dropout: Dropout = 0.1
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    pre_norm: bool = False
    """Whether norms come before each half of a block, with one after the last, and not after it as in the paper."""

    def check(self) -> None:
        """See ModelSection.check."""
        super().check()
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise UserError(f"sinusoidal positions come in pairs: model.d_model={self.d_model} is odd")

    def count(self, labels: LabelHead | None) -> ModelCount:
        """See ModelSection.count; a token is a position of either stack."""
        if labels:
            raise ValueError("an encoder-decoder predicts tokens, not labels")
        layers, width, hidden, vocab = self.n_layers, self.d_model, self.d_feed_forward, self.vocab_size or 0
        source, target = self.source_context, self.context
        attention, feed_forward, norm = 4 * width * width, 2 * width * hidden, 2 * width
        biases = 4 * width
        each = feed_forward + hidden + width
        encoder = attention + biases + each + 2 * norm
        decoder = 2 * (attention + biases) + each + 3 * norm
        embedding = self.table_params()
        if self.positions == "learned":
            embedding += (source + target) * width
        total = embedding + layers * (encoder + decoder) + (2 * norm if self.pre_norm else 0)
        total += 0 if self.tie_embeddings else vocab * width
        sequence: dict[str, float] = {  # training FLOPs of one pair
            "encoder_projections": 6 * layers * attention * source,
            "encoder_scores": 12 * layers * width * source * source,
            "encoder_feed_forward": 6 * layers * feed_forward * source,
            "attention_projections": 6 * layers * attention * target,
            "attention_scores": 12 * layers * width * target * target,
            "cross_projections": 6 * layers * 2 * width * width * (source + target),
            "cross_scores": 12 * layers * width * source * target,
            "feed_forward": 6 * layers * feed_forward * target,
            "head": 6 * vocab * width * target,
        }
        return ModelCount(
            n_params=total,
            n_params_active=total,
            n_params_embedding=embedding,
            n_params_matmul=layers * (3 * attention + 2 * feed_forward) + vocab * width,
            parts={name: whole(flops / self.sequence_tokens) for name, flops in sequence.items()},
            last_products=0 if self.dropout or not self.pre_norm else 2 * layers * width * hidden,
        )

    def saved_bytes(self, value: int, stream: int, on_cpu: bool) -> int:
        """See ModelSection.saved_bytes; attention has no dropout here, and ReLU keeps only what comes out of it."""
        width, layers = self.d_model, self.n_layers
        mask, first_mask = (self.dropout_mask(element, on_cpu) for element in (value, stream))
        one, three = self.read_by(1, value, stream), self.read_by(3, value, stream)
        block = three + 4 * width * value + one + self.d_feed_forward * value + 2 * (width * stream + mask)
        looks = one + 2 * width * value + width * stream + mask  # a query and a mixture
        # Keys and values of the source, which all layers read off one memory, unless each narrows it for itself.
        memories = layers if value < stream else 1
        looked_at = layers * 2 * width * value + memories * self.read_by(2, value, stream)
        ends = first_mask + (width * stream if self.pre_norm else 0)
        source, target = layers * block + looked_at + ends, layers * (block + looks) + width * value + ends
        return self.source_context * source + self.context * target

    def output_bytes(self, value: int, on_cpu: bool) -> int:
        """See ModelSection.output_bytes; attention has no dropout here."""
        width, layers = self.d_model, self.n_layers
        attention = 5 * width * value + self.n_heads * WIDE
        feed_forward = (self.d_feed_forward + width) * value
        cross = 3 * width * value + self.n_heads * WIDE  # a query, a mixture and its projection
        source = attention + feed_forward + 2 * width * value  # and keys and values for each layer of the decoder
        return layers * (self.source_context * source + self.context * (attention + cross + feed_forward))
