"""BERT's section."""

from typing import ClassVar, Literal

from pydantic import Field

from lmexp.config.base import Positive
from lmexp.config.models.base import WIDE, Dropout, Reads, TransformerSection
from lmexp.config.models.count import LabelHead, ModelCount


class BertConfig(TransformerSection):
    """Encoder after BERT (Devlin et al. 2018): learned positions, post-norm, GELU, tied head with a transform."""

    ways: ClassVar[tuple[Reads, ...]] = ("both_ways",)
    gives_sample_gradients: ClassVar[bool] = True

    target: Literal["lmexp.models.bert.Bert"] = Field(alias="_target_")
    family: Literal["bert"] = "bert"
    dropout: Dropout = 0.1
    norm_eps: Positive = 1e-12

    def count(self, labels: LabelHead | None) -> ModelCount:
        """See ModelSection.count."""
        layers, width, hidden, vocab = self.n_layers, self.d_model, self.d_feed_forward, self.vocab_size or 0
        attention, feed_forward, norm = 4 * width * width, 2 * width * hidden, 2 * width
        embedding = (vocab + self.context) * width
        # A transform and its norm, and a bias for every token, before and after the tied table.
        head = labels.params(width) if labels else width * width + width + norm + vocab
        each = attention + 4 * width + feed_forward + hidden + width + 2 * norm
        total = embedding + norm + layers * each + head
        parts: dict[str, float] = {
            "attention_projections": 6 * layers * attention,
            "attention_scores": 12 * layers * width * self.context,
            "feed_forward": 6 * layers * feed_forward,
        }
        if labels:
            parts["head"] = labels.flops(width, self.context)
        else:
            parts |= {"head_transform": 6 * width * width, "head": 6 * vocab * width}
        return ModelCount(
            n_params=total,
            n_params_active=total,
            n_params_embedding=embedding,
            n_params_matmul=layers * (attention + feed_forward)
            + width * (labels.n_labels if labels else width + vocab),
            parts=parts,
            is_causal=False,
        )

    def saved_bytes(self, value: int, stream: int, on_cpu: bool) -> int:
        """See ModelSection.saved_bytes; queries, keys and values are three matrices, and the head has a layer."""
        width = self.d_model
        mask, first_mask = (self.dropout_mask(element, on_cpu) for element in (value, stream))
        heads = 3 * width * WIDE + self.score_bytes if self.keeps_scores(on_cpu) else 3 * width * value
        attention = self.read_by(3, value, stream) + heads + width * value
        feed_forward = self.read_by(1, value, stream) + 2 * self.d_feed_forward * value
        block = attention + feed_forward + 2 * (width * stream + mask)
        return self.context * (self.n_layers * block + width * (4 * value + stream) + first_mask)
