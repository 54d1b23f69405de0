"""The section of minGRU."""

from typing import ClassVar, Literal

from pydantic import Field

from lmexp.config.base import Count, Positive
from lmexp.config.models.base import WIDE, StackSection
from lmexp.config.models.count import LabelHead, ModelCount


class MinGRUConfig(StackSection):
    """Stack of minimal gated recurrent units (Feng et al. 2024), each followed by a feed-forward layer.

    What a unit keeps and forgets depends on its input alone, so that all positions are computed at once in training,
    and one after the other, from a state of fixed size, when a text is continued.
    """

    shape: ClassVar[tuple[str, ...]] = ("n_layers", "d_model", "d_ff")
    widths: ClassVar[tuple[str, ...]] = ("d_ff",)

    target: Literal["lmexp.models.mingru.MinGRU"] = Field(alias="_target_")
    family: Literal["mingru"] = "mingru"
    n_heads: None = None
    d_ff: Count | None = None
    """Width of the feed-forward layer; null means 4 d_model."""
    norm_eps: Positive = 1e-5
    tie_embeddings: bool = True
    """Whether the output head shares the token embedding's weights."""

    @property
    def d_feed_forward(self) -> int:
        """Width of the feed-forward layer, resolved."""
        return self.d_ff or 4 * self.d_model

    @property
    def scan_rounds(self) -> int:
        """Rounds in which the recurrence reaches from the first position to the last, doubling its reach in each."""
        return (self.context - 1).bit_length()

    def count(self, labels: LabelHead | None) -> ModelCount:
        """See ModelSection.count; the recurrence itself multiplies element by element, which does not count."""
        layers, width, hidden, vocab = self.n_layers, self.d_model, self.d_feed_forward, self.vocab_size or 0
        mixing, feed_forward = 3 * width * width, 2 * width * hidden  # gate, candidate, output; up, down
        embedding = vocab * width
        head = labels.params(width) if labels else 0 if self.tie_embeddings else vocab * width
        total = embedding + layers * (mixing + feed_forward + 2 * width) + width + head
        return ModelCount(
            n_params=total,
            n_params_active=total,
            n_params_embedding=embedding,
            n_params_matmul=layers * (mixing + feed_forward) + width * (labels.n_labels if labels else vocab),
            last_products=0 if self.dropout else 2 * layers * width * hidden,
            parts={
                "recurrence": 6 * layers * mixing,
                "feed_forward": 6 * layers * feed_forward,
                "head": labels.flops(width, self.context) if labels else 6 * vocab * width,
            },
        )

    def saved_bytes(self, value: int, stream: int, on_cpu: bool) -> int:
        """See ModelSection.saved_bytes; each round of the scan keeps what it multiplies, in float32."""
        width = self.d_model
        norm = width * (WIDE + stream if on_cpu else stream)  # a CPU's is not fused: it keeps what it has divided
        mask, first_mask = (width * (size if on_cpu else 1) if self.dropout else 0 for size in (value, stream))
        read = width * value * (2 if value < stream else 1)  # by gate and candidate
        scan = width * WIDE * (2 + 2 * self.scan_rounds)
        mixing = read + scan + width * value
        feed_forward = width * value + 2 * self.d_feed_forward * value
        block = 2 * norm + mixing + feed_forward + 2 * mask
        return self.context * (self.n_layers * block + norm + width * value + first_mask)

    def output_bytes(self, value: int, on_cpu: bool) -> int:
        """See ModelSection.output_bytes: gate, candidate, output, up and down."""
        return self.context * self.n_layers * (4 * self.d_model + self.d_feed_forward) * value
