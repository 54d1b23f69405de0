"""The bytes of one optimizer step, phase by phase, of any family: what the section tells, walked through."""

from lmexp.config.checks import copies_the_model, gathers_in_bf16, world_size
from lmexp.config.models.base import WIDE, CountedSection
from lmexp.config.pieces import rows_at_a_time
from lmexp.config.schema import RunConfig
from lmexp.cost.flops import count_run

BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 2}
"""Bytes of a stored value by its type, or of an activation by the type of the matmuls: fp8 saves bf16."""

RNG_STATE = 5056
"""Bytes of a CPU's random state, which each layer keeps that is computed again; a GPU's has 16."""


class Step:
    """The bytes of one optimizer step on one device, of any family."""

    def __init__(self, run: RunConfig, sequences: int, on_cpu: bool, accumulates: bool) -> None:
        precision, model = run.precision, run.model
        self.count = count_run(run)
        self.run, self.on_cpu, self.accumulates, self.sequences = run, on_cpu, accumulates, sequences
        self.shards = world_size(run) if run.trainer.strategy == "fsdp" else 1
        self.recompute = run.trainer.activation_checkpointing
        self.weight = BYTES[precision.weights]  # bytes of a weight
        self.gradient = BYTES[precision.gradients]
        self.multiplied = BYTES[precision.compute]  # bytes of what goes into and comes out of a matmul
        self.is_autocast = precision.lightning in ("bf16-mixed", "16-mixed")
        self.is_gathered_narrow = gathers_in_bf16(run)
        self.gathered_weight = BYTES["bf16"] if self.is_gathered_narrow else self.weight  # in layers
        self.params = -(-self.count.n_params // self.shards)  # that this process keeps
        self.weights = self.params * self.weight
        trained = -(-(self.count.n_params - self.count.n_params_frozen) // self.shards)
        self.gradients = trained * self.gradient
        self.has_buckets = copies_the_model(run)
        """Whether gradients are added up in buckets, which stand all the time; then they lie in them (DDP)."""
        labels = run.task.label_head()
        self.classes = labels.n_labels if labels else model.vocab_size or 0
        # An optimizer whose state is not known counts as Adam does: two values for each weight, as most have.
        moments, of_matrices = (
            2 if names is None else len(names) for names in (run.optim.moments, run.optim.matrix_moments)
        )
        values = trained * moments + (of_matrices - moments) * self.block_matrices
        self.optimizer = values * BYTES[precision.optimizer]
        self.predictions = sequences * (1 if labels and not labels.per_token else model.context)
        self.rows = self.predictions
        """How many of the predictions have logits at a time: fewer than all if the loss is computed in pieces."""
        is_ours = run.task.target.startswith("lmexp.") and not isinstance(model, CountedSection)
        if is_ours and not labels and not run.privacy.is_on and model.reads != "source_to_target":
            self.rows = min(self.rows, rows_at_a_time(max(self.classes, 1), "cpu" if on_cpu else "cuda"))

    @property
    def block_matrices(self) -> int:
        """Number of trained parameters in the blocks' matrices; slightly too high if the head has a transform."""
        if self.count.n_params_frozen:
            return 0
        idle = self.count.n_params - self.count.n_params_active  # experts that a token passes by
        return self.count.n_params_matmul + idle - self.classes * (self.run.model.d_model or 0)

    @property
    def standing_gradients(self) -> tuple[int, int]:
        """Bytes of gradients outside of buckets, before and after the backward pass of a micro-batch.

        Before it there are those of earlier micro-batches only, which are added to buckets at the end of the step.
        """
        before = self.gradients if self.accumulates else 0
        return before, before if self.has_buckets else self.gradients

    @property
    def gathered(self) -> int:
        """What FSDP gathers at a time: a fair share for two layers and all that is outside of them, with gradients."""
        two_layers = 2 * self.count.n_params // (self.run.model.n_layers or 1)
        return self.count.n_params_embedding * self.weight + two_layers * (self.gathered_weight + self.gradient)

    @property
    def activations(self) -> int:
        """What the forward pass saves, logits left out."""
        if self.count.n_params_frozen:  # all that is kept is what the head reads
            return self.predictions * (self.run.model.d_model or 0) * self.multiplied
        return self.outside_of_layers + (self.in_layers if self.recompute == "none" else self.kept_by_layers)

    @property
    def outside_of_layers(self) -> int:
        """What the forward pass saves outside of layers."""
        model = self.run.model.model_copy(update={"n_layers": 0})
        return self.sequences * model.saved_bytes(self.multiplied, self.weight, self.on_cpu)

    @property
    def in_layers(self) -> int:
        """What the layers save if nothing is computed again."""
        saved = self.sequences * self.run.model.saved_bytes(self.multiplied, self.weight, self.on_cpu)
        return saved - self.outside_of_layers

    @property
    def kept_by_layers(self) -> int:
        """What layers keep with activation checkpointing: their inputs, and what `selective` keeps of their work."""
        model, layers = self.run.model, self.run.model.n_layers or 0
        inputs = self.sequences * model.sequence_tokens * layers * (model.d_model or 0) * self.weight
        outputs = self.sequences * model.output_bytes(self.multiplied, self.on_cpu)
        return inputs + (outputs if self.recompute == "selective" else 0)

    @property
    def recomputed(self) -> int:
        """What a layer's backward pass takes anew with activation checkpointing, with the layer's weights as cast."""
        if self.recompute == "none":
            return 0
        model = self.run.model
        layers = (model.n_layers or 1) * (2 if model.reads == "source_to_target" else 1)
        is_cast = self.is_autocast and not self.is_gathered_narrow
        casts = self.block_matrices * self.multiplied if is_cast else 0
        return (max(self.in_layers - self.kept_by_layers, 0) + casts) // layers

    @property
    def casts(self) -> int:
        """Copies of the weights in autocast's type that live as long as the activations."""
        if not self.is_autocast:
            return 0
        idle = self.count.n_params - self.count.n_params_active  # experts that a token passes by are cast all the same
        cast = self.count.n_params_matmul + idle
        keeps_layers = self.recompute == "none" and not self.is_gathered_narrow
        return (cast - (0 if keeps_layers else self.block_matrices)) * self.multiplied

    @property
    def in_pieces(self) -> bool:
        """Whether the loss is computed for some tokens at a time (tasks/cross_entropy.py)."""
        return self.rows < self.predictions

    @property
    def kept_by_loss(self) -> int:
        """What the loss keeps for the backward pass: log-probabilities or, if in pieces, the gradients behind them."""
        if not self.in_pieces:
            return self.predictions * self.classes * WIDE
        width = self.run.model.d_model or 0
        return self.predictions * width * self.multiplied + self.classes * width * WIDE

    @property
    def piece(self) -> int:
        """The most that a piece takes while its loss is computed: its logits, and their logarithms in float32."""
        logits, wide = (self.rows * self.classes * value for value in (self.multiplied, WIDE))
        # Logits become float32 before their logarithms are taken; torch does both at once only for fp16 on a GPU.
        at_once = self.run.precision.compute == "fp16" and not self.on_cpu
        widened = wide if self.multiplied < WIDE and not at_once else 0
        # Then comes this piece's gradient of the output layer, which is added in float32 to that of the other pieces.
        layer = self.classes * (self.run.model.d_model or 0)
        of_layer = logits + layer * self.multiplied + (layer * WIDE if self.on_cpu and widened else 0)
        return max(logits + widened + wide, of_layer)

    @property
    def inside_backward(self) -> int:
        """What the backward pass of a layer takes besides what was kept."""
        if self.count.n_params_frozen:
            return 0
        return self.run.model.backward_bytes(self.sequences, self.multiplied, self.on_cpu)

    @property
    def kept_to_clip(self) -> int:
        """What a private step keeps until the norms of all sequences are known: the gradients of the layers' outputs.

        Inputs and gradients are kept in float32; autocast's own copies of inputs are among the activations.
        """
        if not self.run.privacy.is_on:
            return 0
        outputs = self.sequences * self.run.model.output_bytes(WIDE, self.on_cpu)
        return 2 * outputs + self.predictions * self.classes * WIDE

    def phases(self) -> dict[str, int]:
        """Return the bytes of each phase, weights and optimizer left out."""
        logits, wide = (self.predictions * self.classes * value for value in (self.multiplied, WIDE))
        saved = self.activations + self.casts
        loss, backward = logits + 2 * wide, 3 * wide
        if self.in_pieces:
            loss, backward = self.kept_by_loss + self.piece, self.kept_by_loss
        before, after = self.standing_gradients
        return {
            "loss": before + saved + loss,
            "loss_backward": before + saved + backward,
            "backward": after + saved + self.recomputed + self.inside_backward,
            "update": after,
        }
