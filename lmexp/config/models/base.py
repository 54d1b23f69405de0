"""What the section of every model family has, and says of the family; the families' own modules lie beside this one."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from lmexp.config.base import Count, Section
from lmexp.config.models.count import HEAD, LabelHead, ModelCount
from lmexp.errors import UserError

Reads = Literal["left_to_right", "both_ways", "source_to_target"]
"""What a position of a model's output may depend on: the tokens up to it; all tokens; a source text, and the
target's tokens up to it."""
Dropout = Annotated[float, Field(ge=0, lt=1)]
WIDE = 4
"""Bytes of float32, which losses, statistics and some scores are kept in whatever else is computed in."""


class ModelSection(Section):
    """A model family's part of the config, and all that is to be known of the family without torch.

    A family overrides `check` for sizes that do not go together, `count` for its parameters and FLOPs, and
    `saved_bytes` for its activations. One that cannot count itself derives from CountedSection.
    """

    ways: ClassVar[tuple[Reads, ...]] = ("left_to_right",)
    """What a position of the output may depend on, in any model of the family."""
    shape: ClassVar[tuple[str, ...]] = ("n_layers", "d_model", "n_heads")
    """Fields that make the size of a model."""
    widths: ClassVar[tuple[str, ...]] = ()
    """Fields among these that grow as d_model does."""
    masks_documents: ClassVar[bool] = False
    """Whether the model can keep the documents of a sequence apart; see LanguageModel.forward."""
    supports_fp8: ClassVar[bool] = False
    """Whether precision=fp8 knows what to do with the family's layers."""

    gives_sample_gradients: ClassVar[bool] = False
    """Whether models/sample_gradients.py knows the gradients of each sequence of a batch, which privacy clips."""

    computes_in_narrow_weights: ClassVar[bool] = False
    """Whether fsdp may gather layers in bf16, the weights of norms included. It may not if a choice, such as that of
    experts, depends on a weight that would be rounded."""

    has_separate_layers: ClassVar[bool] = True
    """Whether each layer is a module of its own, so that activation checkpointing can work layer by layer."""

    target: str = Field(alias="_target_")
    family: str
    """The family's name, as in tables."""
    name: str
    """The size's name, as in tables."""
    n_layers: Count | None = None
    d_model: Count | None = None
    """Width of the residual stream, which heads read; of an LSTM, of its state."""
    n_heads: Count | None = None
    context: Count
    """Longest sequence, in tokens; also the length of the training sequences."""
    vocab_size: Count | None = None
    """Rows of the embedding; null means the tokenizer's."""

    @property
    def reads(self) -> Reads:
        """What a position of the output may depend on."""
        return self.ways[0]

    @property
    def source_limit(self) -> tuple[int, str]:
        """The most tokens of a source, in a model that reads one, and the key that says so."""
        return self.context, "model.context"

    @property
    def sequence_tokens(self) -> int:
        """Positions that one training sequence takes, padding included: of both stacks where there are two."""
        return self.context + (self.source_limit[0] if self.reads == "source_to_target" else 0)

    @property
    def flops_source(self) -> Literal["formula", "counted"]:
        """Whether `count` goes by a formula, or by what torch counted of the model once."""
        return "formula"

    @property
    def not_in_identity(self) -> set[str]:
        """Fields that cannot change a run's result, or that others stand for."""
        return {"name"}

    @property
    def width_multiple(self) -> float:
        """The width divided by that of muP's base model; 1 without muP."""
        return 1.0

    @property
    def module(self) -> str:
        """The dotted name of the torch module that is built from this section."""
        return self.target

    def check(self) -> None:
        """Raise UserError for the first value that does not go with another."""

    def check_fp8(self) -> None:
        """Raise UserError where the model's widths cannot be multiplied in fp8."""

    def count(self, labels: LabelHead | None) -> ModelCount:
        """Count a model whose vocabulary is resolved, with a head over labels, or over the vocabulary (None).

        Raises ValueError when something is not resolved, or the model can have no such head.
        """
        raise UserError(f"{type(self).__name__} must define count(labels), or derive from CountedSection")

    def saved_bytes(self, value: int, stream: int, on_cpu: bool) -> int:
        """Return how much a forward pass keeps for the backward pass, for each sequence, logits left out.

        By itself a rough estimate: that of a GPT of this width and depth, without dropout.

        Args:
            value: bytes of what goes into and comes out of a matmul.
            stream: bytes of what results are added to; where that is wider, autocast narrows it for each matrix anew.
            on_cpu: whether it is a CPU, where attention with dropout keeps all scores, and some kernels keep more.
        """
        layers, width = self.n_layers or 0, self.d_model or 0
        return self.context * (layers * (14 * value + 2 * stream) + value + stream) * width

    def output_bytes(self, value: int, on_cpu: bool) -> int:
        """Return how much the matmuls and the attention of all layers give out, for each sequence.

        It is what selective activation checkpointing keeps, besides each layer's input. By itself that of a GPT of this
        width and depth. See `saved_bytes` for `value` and `on_cpu`.
        """
        return self.context * (self.n_layers or 0) * 10 * (self.d_model or 0) * value

    def backward_bytes(self, sequences: int, value: int, on_cpu: bool) -> int:
        """Return the most that the backward pass of a layer takes, besides what the forward pass kept.

        0 for families where it is small, such as a plain Transformer. See `saved_bytes` for `value` and `on_cpu`.
        """
        return 0

    def with_vocabularies(self, vocab_size: int, source_vocab_size: int) -> Self:
        """Fill in the rows of the embeddings that tokenizers of so many entries need, where they are not set.

        `source_vocab_size` differs where source and target of a pair have tokenizers of their own. Raises UserError
        when fewer rows are set than are needed.
        """
        return self.model_copy(update={"vocab_size": rows("model.vocab_size", self.vocab_size, vocab_size)})

    def without_weights(self) -> Self:
        """Return a section that builds the same shape without looking for pretrained weights: others will be loaded."""
        return self


def rows(key: str, given: int | None, needed: int) -> int:
    """Return the rows of an embedding: those that a key gives, or those needed. Raises UserError for too few."""
    if given is not None and given < needed:
        raise UserError(f"{key}={given} is less than the tokenizer's {needed}")
    return given or needed


class StackSection(ModelSection):
    """What every stack of equal layers has."""

    n_layers: Count
    d_model: Count
    """Width of the residual stream; of an LSTM, of its state."""
    dropout: Dropout = 0.0


class TransformerSection(StackSection):
    """What every Transformer has."""

    shape: ClassVar[tuple[str, ...]] = (*StackSection.shape, "d_ff")
    widths: ClassVar[tuple[str, ...]] = ("d_ff",)
    computes_in_narrow_weights: ClassVar[bool] = True

    n_heads: Count
    """Attention heads; must divide d_model."""
    d_ff: Count | None = None
    """Width of the feed-forward layer; null means the family's usual multiple of d_model."""

    @property
    def d_feed_forward(self) -> int:
        """Width of the feed-forward layer, resolved."""
        return self.d_ff or 4 * self.d_model

    def check(self) -> None:
        """See ModelSection.check."""
        if self.d_model % self.n_heads:
            raise UserError(f"model.d_model={self.d_model} is not divisible by model.n_heads={self.n_heads}")

    def attention_scale(self, head_size: int) -> float | None:
        """Return what the scores of heads of this width are multiplied by; None means 1 / sqrt(head_size)."""
        return None

    def keeps_scores(self, on_cpu: bool) -> bool:
        """Whether attention keeps every score, in float32: the fused attention of CPUs knows no dropout."""
        return on_cpu and self.dropout > 0

    def attention_output_bytes(self, value: int, on_cpu: bool) -> int:
        """Return what attention gives out at one position: a mixture and, if fused, the softmax's denominators.

        Attention that is not fused gives out every score too, and computes in float32.
        """
        if self.keeps_scores(on_cpu):
            return self.n_heads * self.context * WIDE + self.d_model * WIDE
        return self.d_model * value + self.n_heads * WIDE

    def output_bytes(self, value: int, on_cpu: bool) -> int:
        """See ModelSection.output_bytes: queries, keys, values, their mixture, its projection, and feed-forward."""
        width = self.d_model
        each = self.attention_output_bytes(value, on_cpu) + (5 * width + self.d_feed_forward) * value
        return self.context * self.n_layers * each

    @property
    def score_bytes(self) -> int:
        """Bytes that attention keeps of one position where it keeps its scores, the mask of dropout, their product."""
        return 3 * self.n_heads * self.context * WIDE

    def read_by(self, matrices: int, value: int, stream: int) -> int:
        """Return the bytes that one position's input of several matrices takes."""
        return self.d_model * value * (matrices if value < stream else 1)

    def dropout_mask(self, element: int, on_cpu: bool) -> int:
        """Return the bytes of one position's mask of dropout: of the values' own type on a CPU, of bytes on a GPU."""
        return self.d_model * (element if on_cpu else 1) if self.dropout else 0


class ModelSize(Section):
    """What a model without a formula holds and costs, as torch counted it when the config was resolved."""

    n_params: Count
    """Trainable parameters; tied ones count once."""
    n_params_active: Count
    """Parameters that one token uses."""
    n_params_embedding: Annotated[int, Field(ge=0)]
    """Tables that are looked up."""
    n_params_matmul: Count
    """Parameters that multiply each token, output head included; of experts, the active ones. Those that layers share,
    as in ALBERT, count as often as they multiply: six FLOPs each and the scores of attention are the sum of `parts`.
    In a seq2seq architecture, whose stacks have their own tokens, each counts once."""
    n_params_head: Annotated[int, Field(ge=0)]
    """Parameters that only the head over the vocabulary has: what another head takes the place of."""
    parts: dict[str, float]
    """Training FLOPs per token, by named part, at sequences of the full context."""


class CountedSection(ModelSection):
    """A family without a formula: torch counts the model on meta tensors, once, when the config is resolved."""

    size: ModelSize | None = None
    """Filled in when the config is resolved; from then on nothing that counts needs torch."""

    @property
    def flops_source(self) -> Literal["formula", "counted"]:
        """See ModelSection."""
        return "counted"

    @property
    def not_in_identity(self) -> set[str]:
        """The size follows from the rest, by a count that may be corrected."""
        return {"name", "size"}

    def count(self, labels: LabelHead | None) -> ModelCount:
        """See ModelSection.count."""
        size = self.size
        if size is None or self.d_model is None:
            raise ValueError(f"a model of {self.family} must be measured before it is counted (cost/measure.py)")
        n_params, active, matmul, parts = size.n_params, size.n_params_active, size.n_params_matmul, dict(size.parts)
        if labels:
            if self.reads == "source_to_target":
                raise ValueError("an encoder-decoder predicts tokens, not labels")
            changed = labels.params(self.d_model) - size.n_params_head
            head_flops = sum(parts.pop(name, 0) for name in HEAD)
            matmul += self.d_model * labels.n_labels - int(head_flops) // 6
            n_params, active = n_params + changed, active + changed
            parts["head"] = labels.flops(self.d_model, self.context)
        return ModelCount(
            n_params=n_params,
            n_params_active=active,
            n_params_embedding=size.n_params_embedding,
            n_params_matmul=matmul,
            parts=parts,
            is_causal=self.reads != "both_ways",
        )
