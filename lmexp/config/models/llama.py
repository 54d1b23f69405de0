"""Llama's section, on which the mixture of experts is built."""

from typing import ClassVar, Literal

from pydantic import Field

from lmexp.config.base import Count, Positive
from lmexp.config.models.base import WIDE, TransformerSection
from lmexp.config.models.count import LabelHead, ModelCount
from lmexp.config.models.mup import MupSection
from lmexp.errors import UserError


class LlamaSection(TransformerSection):
    """What Llama and the mixture of experts share."""

    shape: ClassVar[tuple[str, ...]] = (*TransformerSection.shape, "n_kv_heads", "head_size")
    masks_documents: ClassVar[bool] = True

    n_kv_heads: Count | None = None
    """Heads of keys and values, each read by n_heads / n_kv_heads queries (Ainslie et al. 2023); null: n_heads."""
    head_size: Count | None = None
    """Width of a head; null means d_model / n_heads."""
    rope_theta: Positive = 10_000.0
    """Base of the rotary positions' wavelengths (Su et al. 2021)."""
    norm_eps: Positive = 1e-5
    qk_norm: bool = False
    """Whether queries and keys of each head are normalised (Dehghani et al. 2023)."""
    window: Count | None = None
    """How many positions, its own included, a position sees; null means all before it."""
    tie_embeddings: bool = False

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values, resolved."""
        return self.n_kv_heads or self.n_heads

    @property
    def d_head(self) -> int:
        """Width of a head, resolved."""
        return self.head_size or self.d_model // self.n_heads

    @property
    def d_feed_forward(self) -> int:
        """Two thirds of 4 d_model, for SwiGLU has three matrices (Shazeer 2020), in whole multiples of 32."""
        return self.d_ff or -(-8 * self.d_model // 96) * 32

    @property
    def attention_span(self) -> int:
        """The most positions that one sees."""
        return min(self.window or self.context, self.context)

    @property
    def feed_forward_params(self) -> tuple[int, int, int]:
        """Parameters of a feed-forward layer: of its router, of what one token goes through, of all but the router."""
        whole = 3 * self.d_model * self.d_feed_forward  # gate, up, down
        return 0, whole, whole

    def check(self) -> None:
        """See ModelSection.check."""
        if self.head_size is None:
            super().check()
        if self.d_head % 2:
            raise UserError(f"rotary positions turn pairs of values: a head's width of {self.d_head} is odd")
        if self.n_heads % self.kv_heads:
            raise UserError(f"model.n_heads={self.n_heads} is not a multiple of model.n_kv_heads={self.kv_heads}")

    def count(self, labels: LabelHead | None) -> ModelCount:
        """See ModelSection.count."""
        layers, width, vocab = self.n_layers, self.d_model, self.vocab_size or 0
        queries, keys = self.n_heads * self.d_head, self.kv_heads * self.d_head
        attention = 2 * width * queries + 2 * width * keys
        router, used, held = self.feed_forward_params
        norms = 2 * width + (2 * self.d_head if self.qk_norm else 0)
        embedding = vocab * width
        head = labels.params(width) if labels else 0 if self.tie_embeddings else vocab * width
        total = embedding + layers * (attention + router + held + norms) + width + head
        parts: dict[str, float] = {
            "attention_projections": 6 * layers * attention,
            "attention_scores": 12 * layers * queries * self.attention_span,
            "feed_forward": 6 * layers * used,
            "head": labels.flops(width, self.context) if labels else 6 * vocab * width,
        }
        if router:
            parts["router"] = 6 * layers * router
        return ModelCount(
            n_params=total,
            n_params_active=total - layers * (held - used),
            n_params_embedding=embedding,
            n_params_matmul=layers * (attention + router + used) + width * (labels.n_labels if labels else vocab),
            parts=parts,
            last_products=0 if self.dropout or router else 2 * layers * width * self.d_feed_forward,
        )

    def saved_bytes(self, value: int, stream: int, on_cpu: bool) -> int:
        """See ModelSection.saved_bytes."""

        def norm(size: int, element: int) -> int:
            """A CPU's is not fused: it widens, and keeps what it has divided."""
            return size * (WIDE + element if on_cpu else element)

        width, is_unfused = self.d_model, self.keeps_scores(on_cpu)
        mask, first_mask = (self.dropout_mask(element, on_cpu) for element in (value, stream))
        queries, keys = self.n_heads * self.d_head, self.kv_heads * self.d_head
        heads = 3 * queries * WIDE + self.score_bytes if is_unfused else (queries + 2 * keys) * value
        if self.qk_norm:
            heads += norm(queries + keys, value) + (0 if is_unfused else queries * value)
        attention = self.read_by(3, value, stream) + heads + queries * value
        block = 2 * norm(width, stream) + attention + self.feed_forward_bytes(value, stream) + 2 * mask
        return self.context * (self.n_layers * block + norm(width, stream) + width * value + first_mask)

    def output_bytes(self, value: int, on_cpu: bool) -> int:
        """See ModelSection.output_bytes."""
        queries, keys = self.n_heads * self.d_head, self.kv_heads * self.d_head
        projected = (queries + 2 * keys + self.d_model) * value
        each = projected + self.attention_output_bytes(value, on_cpu) + self.feed_forward_outputs(value)
        return self.context * self.n_layers * each

    def feed_forward_outputs(self, value: int) -> int:
        """Return what the matmuls of one position's feed-forward layer give out: gate, up and down."""
        return (2 * self.d_feed_forward + self.d_model) * value

    def feed_forward_bytes(self, value: int, stream: int) -> int:
        """Return what one position's feed-forward layer keeps; see saved_bytes."""
        return self.read_by(2, value, stream) + 4 * self.d_feed_forward * value


class LlamaConfig(MupSection, LlamaSection):
    """Decoder-only Transformer after Llama (Touvron et al. 2023): rotary positions, RMSNorm, SwiGLU, no biases."""

    gives_sample_gradients: ClassVar[bool] = True

    target: Literal["lmexp.models.llama.Llama"] = Field(alias="_target_")
    family: Literal["llama"] = "llama"
