"""The bytes of one optimizer step of GPT with a head over its vocabulary, tensor by tensor."""

from lmexp.config.attention import backward_bytes, by_matmuls, forward_bytes
from lmexp.config.models.base import WIDE
from lmexp.config.models.gpt import GPTConfig
from lmexp.config.optimizers import MuonConfig, SGDConfig
from lmexp.config.schema import RunConfig
from lmexp.cost.memory_step import BYTES, RNG_STATE, Step


class GPTStep(Step):
    """One optimizer step of GPT with a head over its vocabulary."""

    def __init__(self, run: RunConfig, sequences: int, on_cpu: bool, accumulates: bool) -> None:
        super().__init__(run, sequences, on_cpu, accumulates)
        assert isinstance(run.model, GPTConfig)
        self.model = run.model
        self.tokens, self.vocab = self.predictions, self.classes
        # Layers keep their input as they multiply it; those of torchao know no autocast of a CPU, and keep float32.
        self.linear = WIDE if run.precision.compute == "fp8" and on_cpu else self.multiplied
        self.stream = self.weight  # additions of a block's output to the stream promote to the wider
        self.head = self.vocab * self.model.d_model  # parameters
        self.block_params = (self.count.n_params_matmul - self.head) // self.model.n_layers
        self.outside = self.count.n_params - self.model.n_layers * self.block_params  # of layers

    @property
    def gathered(self) -> int:
        """What FSDP gathers at a time: all that is outside of layers, and two layers, each with its gradients."""
        return self.outside * self.weight + 2 * self.block_params * (self.gathered_weight + self.gradient)

    # what the forward pass saves

    @property
    def norm(self) -> int:
        """A norm's input, and mean and deviation of each token."""
        statistics = self.stream if self.on_cpu else WIDE
        return self.tokens * (self.model.d_model * self.stream + 2 * statistics)

    @property
    def attention(self) -> int:
        """From the projections' input to the last one's."""
        model, tokens, c = self.model, self.tokens, self.multiplied
        ends = tokens * model.d_model * (self.linear + c)  # inputs of the first and of the last projection
        if self.is_unfused:  # in float32: queries, keys, values; scores, the mask of dropout, their product
            # Values that need no copy, neither to widen nor to line up, hold on to queries and keys beside them.
            is_view = c == WIDE and 1 in (self.sequences, model.n_heads)
            return ends + (5 if is_view else 3) * tokens * model.d_model * WIDE + 3 * self.scores
        # Queries, keys and values, and the softmax's denominators; the output is the last projection's input.
        denominators = 0 if self.is_by_matmuls else tokens * model.n_heads * WIDE
        return ends + 3 * tokens * model.d_model * c + denominators

    @property
    def is_by_matmuls(self) -> bool:
        """Whether models/cpu_attention.py computes attention, which keeps no denominators."""
        is_bf16 = self.run.precision.compute in ("bf16", "fp8")
        is_one = self.on_cpu and is_bf16 and not self.model.dropout
        return is_one and by_matmuls(*self.shape_of_heads)

    @property
    def shape_of_heads(self) -> tuple[int, int, int, int]:
        """Sequences, heads, positions and the width of a head."""
        model = self.model
        return self.sequences, model.n_heads, model.context, model.d_model // model.n_heads

    @property
    def is_unfused(self) -> bool:
        """The fused attention of CPUs knows no dropout: every score is then kept."""
        return self.on_cpu and self.model.dropout > 0

    @property
    def scores(self) -> int:
        """One float32 for each pair of positions and head."""
        return self.tokens * self.model.context * self.model.n_heads * WIDE

    @property
    def feed_forward(self) -> int:
        """Inputs of the first projection, of GELU and of the second projection."""
        return self.tokens * (self.model.d_model * self.linear + 2 * self.model.d_feed_forward * self.multiplied)

    def dropout(self, element: int) -> int:
        """A mask over the stream: of the values' own type on a CPU, of bytes on a GPU."""
        mask = element if self.on_cpu else 1
        return self.tokens * self.model.d_model * mask if self.model.dropout else 0

    @property
    def block(self) -> int:
        """What one layer saves."""
        return 2 * self.norm + self.attention + self.feed_forward + 2 * self.dropout(self.multiplied)

    @property
    def shared(self) -> int:
        """What a layer keeps with activation checkpointing of that which its backward pass needs."""
        model, c = self.model, self.multiplied
        inputs = self.tokens * model.d_model * self.stream
        if self.recompute == "full":
            return inputs
        # Queries, keys and values as one product, what attention makes of them, and the input of GELU.
        mixed = 3 * model.d_model * c + model.attention_output_bytes(c, self.on_cpu)
        return inputs + self.tokens * (mixed + model.d_feed_forward * c)

    @property
    def kept(self) -> int:
        """What one layer keeps after the forward pass."""
        if self.recompute == "none":
            return self.block
        ends = 2 * self.tokens * self.model.d_model * self.multiplied  # of both halves, which only `selective` keeps
        return self.shared + (ends if self.recompute == "selective" else 0) + (RNG_STATE if self.on_cpu else 0)

    @property
    def recomputed(self) -> int:
        """See Step."""
        if self.recompute == "none":
            return 0
        is_cast = self.is_autocast and self.run.precision.compute != "fp8" and not self.is_gathered_narrow
        return self.block - self.shared + (self.block_params * self.multiplied if is_cast else 0)

    @property
    def activations(self) -> int:
        """What is saved in all: positions, the layers, the last norm, the head's input."""
        # A loss in pieces does not need the head's input after the forward pass.
        head_input = 0 if self.in_pieces else self.tokens * self.model.d_model * self.multiplied
        positions = 8 * self.model.context
        return positions + self.dropout(self.stream) + self.model.n_layers * self.kept + self.norm + head_input

    @property
    def casts(self) -> int:
        """Weights of all matrices in autocast's type; torchao's fp8 layers keep none."""
        if not self.is_autocast:
            return 0
        keeps_none = self.run.precision.compute == "fp8" or self.recompute != "none" or self.is_gathered_narrow
        layers = 0 if keeps_none else self.model.n_layers * self.block_params
        return (layers + (0 if self.in_pieces else self.head)) * self.multiplied

    @property
    def kept_by_loss(self) -> int:
        """See Step; log-probabilities come with the scalar that the loss divides by."""
        return super().kept_by_loss + (0 if self.in_pieces else WIDE)

    # what stands at each phase, weights and optimizer left out

    def phases(self) -> dict[str, int]:
        """Return the bytes of each phase."""
        model, tokens, c = self.model, self.tokens, self.multiplied
        logits, wide_logits = tokens * self.vocab * c, tokens * self.vocab * WIDE
        widened = wide_logits if c < WIDE else 0
        saved = self.activations + self.casts
        before, after = self.standing_gradients
        # Where gradients are added to what is there, a new one lies beside that until it is complete.
        adds = self.accumulates or self.has_buckets
        stream = tokens * model.d_model
        head = self.head * self.gradient
        blocks = model.n_layers * self.kept + self.dropout(self.stream)
        block_gradients = self.block_params * self.gradient // self.shards
        # Gradients of the weights outside of the layers: they are sharded only when the backward pass is over.
        whole_gradients = self.outside * self.gradient if self.shards > 1 else 0
        # An embedding with a matrix of its own gets its gradient last of all.
        of_embedding = 0 if model.tie_embeddings else self.head * self.gradient // self.shards
        # The second projection: the gradient of its input replaces that input, and GELU's gradient is kept beside it.
        inside = stream * self.stream + tokens * model.d_feed_forward * c + (stream * c if self.is_autocast else 0)
        if self.is_unfused:
            inside = max(inside, self.scores - self.feed_forward)
        mixing = 0
        if self.is_by_matmuls:
            # The projection's input exists in the type of the stream, and narrowed.
            normed = stream * self.stream if self.stream != c else 0
            # In the forward pass, the second half of the layer has kept nothing yet.
            mixing = forward_bytes(*self.shape_of_heads) + normed - self.norm
            # The gradients of the stream, of what attention makes, and of queries, keys and values.
            gradients = stream * (self.stream + 4 * c)
            # What the second half and the projection after attention have kept is freed.
            freed = self.feed_forward + self.norm + stream * self.linear
            # The gradients of the layer's weights are there, except for queries, keys and values.
            done = 0 if adds else (self.block_params - 3 * model.d_model**2) * self.gradient // self.shards
            inside = max(inside, gradients + done + backward_bytes(*self.shape_of_heads) - freed)
        block_casts = self.casts - (self.head * c if self.is_autocast and not self.in_pieces else 0)
        # Where every score is kept, they are computed in float32 and narrowed to what the model computes in.
        narrowed = self.scores // 2 if self.is_unfused and c < WIDE else 0
        loss, loss_backward = logits + widened + wide_logits, 3 * wide_logits
        head_backward = logits + max(widened, self.head * c)
        if self.in_pieces:
            features = stream * self.stream  # the head's input, as the last norm has made it
            loss = self.kept_by_loss + features + self.piece + (self.head * c if self.is_autocast else 0)
            # What the loss has kept becomes gradients; only what changes its type exists twice.
            loss_backward = self.kept_by_loss + (features if self.stream != c else 0)
            head_backward = head + features + (self.head * WIDE if self.gradient < WIDE else 0)
        return {
            "scores": before + blocks + self.casts + self.recomputed - self.feed_forward + narrowed + mixing,
            "loss": before + saved + loss,
            "loss_backward": before + saved + loss_backward,
            "head_backward": before + saved + head_backward,
            "first_block": before + blocks + block_casts + self.recomputed + head + inside,
            "last_block": after - (0 if adds else block_gradients + of_embedding)
            + self.block + inside + self.dropout(self.stream) + (head if adds else 0) + whole_gradients,
            "embedding": after + self._embedding_gradients(adds) + 2 * stream * self.stream + whole_gradients,
            "update": after + self._update(),
        }  # fmt: skip

    def _embedding_gradients(self, adds: bool) -> int:
        """Return what the gradients of a tied embedding take while its two uses are added up.

        `adds` says that the sum is then added to a gradient that is there.
        """
        head = self.head * self.gradient
        tied = self.model.tie_embeddings
        return head * (int(adds) + int(tied) + int(tied and not (self.is_autocast or self.in_pieces)))

    def _update(self) -> int:
        """Return what the optimizer's step takes beside its state."""
        optim, precision = self.run.optim, self.run.precision
        if isinstance(optim, MuonConfig):
            return self._orthogonalisation()
        if not isinstance(optim, SGDConfig):
            is_fused = optim.has_fused_kernel and precision.compute != "fp16"
            return 0 if is_fused else self.gradients
        copies = int(optim.weight_decay > 0) + int(optim.nesterov and optim.momentum > 0)
        # A CPU goes from weight to weight, a GPU through all of them at once.
        largest = max(self.head, self.model.d_model * self.model.d_feed_forward, 3 * self.model.d_model**2)
        return copies * (largest * self.gradient if self.on_cpu else self.gradients)

    def _orthogonalisation(self) -> int:
        """Return what Muon takes for the largest matrix: the update in the gradient's type, the rest in bf16.

        That is two matrices of its shape, and two square ones of its shorter side. The copies that a CPU's kernels pack
        for matmuls are left out.
        """
        width, hidden = self.model.d_model, self.model.d_feed_forward
        shorter = min(width, hidden)
        return max(
            rows * columns * self.gradient + 2 * BYTES["bf16"] * (rows * columns + rows * rows)
            for rows, columns in ((width, width), (shorter, max(width, hidden)))
        )
