"""GPT's section."""

from typing import ClassVar, Literal

from pydantic import Field

from lmexp.config.models.base import WIDE
from lmexp.config.models.count import LabelHead, ModelCount
from lmexp.config.models.mup import MupSection
from lmexp.errors import UserError


class GPTConfig(MupSection):
    """Decoder-only Transformer after GPT-2 (Radford et al. 2019): learned positions, pre-norm, GELU."""

    supports_fp8: ClassVar[bool] = True
    gives_sample_gradients: ClassVar[bool] = True
    masks_documents: ClassVar[bool] = True

    target: Literal["lmexp.models.gpt.GPT"] = Field(alias="_target_")
    family: Literal["gpt"] = "gpt"
    bias: bool = True
    """Whether linear layers and norms have biases."""
    tie_embeddings: bool = True
    """Whether the output head shares the token embedding's weights."""

    def check_fp8(self) -> None:
        """See ModelSection.check_fp8."""
        if self.d_model % 16 or self.d_feed_forward % 16:
            raise UserError(
                f"precision=fp8 multiplies in tiles of 16: model.d_model={self.d_model} and "
                f"model.d_ff={self.d_feed_forward} must be multiples of it"
            )

    def count(self, labels: LabelHead | None) -> ModelCount:
        """See ModelSection.count."""
        layers, width, hidden, vocab = self.n_layers, self.d_model, self.d_feed_forward, self.vocab_size or 0
        attention = 4 * width * width  # query, key, value, output
        feed_forward = 2 * width * hidden
        biases = (4 * width + hidden + width) if self.bias else 0
        norm = 2 * width if self.bias else width
        embedding = vocab * width + self.context * width
        head = labels.params(width) if labels else 0 if self.tie_embeddings else vocab * width
        total = embedding + layers * (attention + feed_forward + biases + 2 * norm) + norm + head
        return ModelCount(
            n_params=total,
            n_params_active=total,
            n_params_embedding=embedding,
            n_params_matmul=layers * (attention + feed_forward) + width * (labels.n_labels if labels else vocab),
            last_products=0 if self.dropout else 2 * layers * width * hidden,
            parts={
                "attention_projections": 6 * layers * attention,
                "attention_scores": 12 * layers * width * self.context,
                "feed_forward": 6 * layers * feed_forward,
                "head": labels.flops(width, self.context) if labels else 6 * vocab * width,
            },
        )

    def saved_bytes(self, value: int, stream: int, on_cpu: bool) -> int:
        """See ModelSection.saved_bytes; with a head over the vocabulary, cost/memory_gpt.py is exact."""
        width = self.d_model
        mask, first_mask = (self.dropout_mask(element, on_cpu) for element in (value, stream))
        heads = 3 * width * WIDE + self.score_bytes if self.keeps_scores(on_cpu) else 3 * width * value
        attention = self.read_by(1, value, stream) + heads + width * value
        feed_forward = self.read_by(1, value, stream) + 2 * self.d_feed_forward * value
        block = attention + feed_forward + 2 * (width * stream + mask)
        return self.context * (self.n_layers * block + width * (value + stream) + first_mask)
