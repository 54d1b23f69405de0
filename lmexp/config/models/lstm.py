"""The LSTM's section."""

from typing import ClassVar, Literal

from pydantic import Field

from lmexp.config.base import Count
from lmexp.config.models.base import WIDE, Dropout, StackSection
from lmexp.config.models.count import LabelHead, ModelCount, whole


class LSTMConfig(StackSection):
    """Stacked LSTM (Hochreiter and Schmidhuber 1997), with the dropouts of Zaremba et al. 2014.

    `dropout` lies between layers. `context` is the length over which gradients flow; each sequence starts from
    an empty state.
    """

    has_separate_layers: ClassVar[bool] = False
    gives_sample_gradients: ClassVar[bool] = True
    shape: ClassVar[tuple[str, ...]] = ("n_layers", "d_model", "d_embedding")
    widths: ClassVar[tuple[str, ...]] = ("d_embedding",)

    target: Literal["lmexp.models.lstm.LSTM"] = Field(alias="_target_")
    family: Literal["lstm"] = "lstm"
    n_heads: None = None
    d_embedding: Count | None = None
    """Width of the embedding; null means d_model."""
    dropout_embedding: Dropout = 0.0
    """On what goes into the first layer."""
    dropout_output: Dropout = 0.0
    """On what goes into the head."""
    tie_embeddings: bool = True
    """Whether the head shares the embedding's weights (Press and Wolf 2017), by a projection where widths differ."""

    @property
    def embedding_width(self) -> int:
        """Width of the embedding, resolved."""
        return self.d_embedding or self.d_model

    def count(self, labels: LabelHead | None) -> ModelCount:
        """See ModelSection.count."""
        layers, width, embedded, vocab = self.n_layers, self.d_model, self.embedding_width, self.vocab_size or 0
        matrices = 4 * width * (embedded + width) + (layers - 1) * 4 * width * 2 * width
        embedding = vocab * embedded
        projection = 0
        if labels:
            head, head_matmul = labels.params(width), width * labels.n_labels
        else:
            projection = width * embedded if self.tie_embeddings and embedded != width else 0
            head_matmul = vocab * (embedded if self.tie_embeddings else width)
            head = projection + (0 if self.tie_embeddings else head_matmul)
        total = embedding + matrices + layers * 8 * width + head  # two biases a gate
        # No gradient goes into the empty state that a sequence starts from: one product of 2 * 4 C C less a layer.
        unneeded = layers * 8 * width * width / self.context
        parts: dict[str, float] = {
            "recurrence": whole(6 * matrices - unneeded),
            "head": labels.flops(width, self.context) if labels else 6 * head_matmul,
        }
        if projection:
            parts["head_transform"] = 6 * projection
        return ModelCount(
            n_params=total,
            n_params_active=total,
            n_params_embedding=embedding,
            n_params_matmul=matrices + projection + head_matmul,
            parts=parts,
        )

    def saved_bytes(self, value: int, stream: int, on_cpu: bool) -> int:
        """See ModelSection.saved_bytes."""
        width, layers = self.d_model, self.n_layers
        mask = width * (value if on_cpu else 1) if self.dropout else 0
        layer = lstm_workspace(width, value, on_cpu) + width * value
        return self.context * (layers * layer + self.embedding_width * value + (layers - 1) * mask)

    def backward_bytes(self, sequences: int, value: int, on_cpu: bool) -> int:
        """See ModelSection.backward_bytes."""
        return lstm_backward_bytes(sequences * self.context * self.d_model, self.n_layers, value, on_cpu)


def lstm_workspace(width: int, value: int, on_cpu: bool) -> int:
    """Return the bytes that a layer keeps of one position besides its output: gates and state.

    They lie in the workspace of oneDNN, whose padding is left out, or in that of cuDNN.
    """
    return width * (17 * value // 2 + 7 * WIDE) if on_cpu else 5 * width * value


def lstm_backward_bytes(values: int, n_layers: int, value: int, on_cpu: bool) -> int:
    """Return the workspace of a stack's backward pass, for `values` outputs of one layer.

    cuDNN's was measured on an H200, with widths of 224 and 512, 1 to 4 layers, 8,192 to 32,768 tokens, in values of 4
    and 2 bytes: with this, the plan is within 5 % of all that a step took.
    """
    return 0 if on_cpu else values * value * (18 + n_layers) // 2 + 20_000_000
