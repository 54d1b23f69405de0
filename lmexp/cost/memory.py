"""Memory that training takes at its most, from the config alone, by named parts.

A step's memory rises and falls, and what is highest depends on the shape: the logits where the vocabulary is
large, what the backward pass needs where the micro-batch is large, gradients and optimizer where the model is.
So the estimate walks through a step and keeps the bytes of each phase:

    scores          the last layer's attention, where dropout on a CPU has it keep every score
    loss            the forward pass is over, gradients of the step before still stand (Lightning drops them
                    only now), logits and their float32 log-probabilities as well
    loss_backward   gradients of the log-probabilities and of the logits, all in float32
    head_backward   gradients of the logits, and of the head's weights
    first_block     the last layer's backward pass, most of what the forward pass saved still there
    last_block      the first layer's: all gradients but its own there, hardly anything saved
    embedding       all gradients, and those of a tied embedding twice until they are added up
    update          all gradients, and what the optimizer needs beside them

So it is for GPT, where what autograd saves was read off torch 2.13 and is held equal to it, to the byte, in a test.
For the other families, and heads over labels, the phases are fewer and only what is large is counted of what is
saved: see `saved_bytes`, which a test holds to within a fifth of what autograd saves, in float32 a tenth. Evaluation
takes less than training: it saves nothing. Checkpoints are written by way of a copy in memory on the host, which
is left out, here as by the meter (see cost/meters.py).
"""

from dataclasses import dataclass

from lmexp.config.checks import device_batch, micro_batch, world_size
from lmexp.config.models import (
    BertConfig,
    EncDecConfig,
    GPTConfig,
    HFConfig,
    LlamaSection,
    LSTMConfig,
    ModelConfig,
    MoEConfig,
)
from lmexp.config.schema import AdamConfig, RunConfig
from lmexp.config.tasks import ClassifyConfig, TagConfig
from lmexp.cost.flops import count_run

BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 2}
"""Of a value by what it is stored in, or of an activation by what matrices are multiplied in: fp8 saves bf16."""
WIDE = 4
"""Bytes of float32, in which losses are computed."""
RUNTIME = {"fp32": 3_500_000, "tf32": 3_500_000, "bf16": 13_000_000, "fp16": 13_000_000, "fp8": 13_000_000}
"""What a process on a CPU takes besides tensors, by what matrices are multiplied in: imports on first use, and
kernels that oneDNN compiles. Seen in 48 runs on an x86 with AMX (benchmarks/memory.py): 3 to 12 MB in fp32, where
it grows with the matrices, and 10 to 18 MB in bf16."""

SPARE = {"cpu": 0.3, "cuda": 0.1}
"""Share of the memory that is left free: what an estimate may be wrong by, and on a CPU what malloc keeps."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one process, by part; `peak` is what a record's peak_memory_gb shows.

    Where processes share the weights (FSDP), weights, gradients and optimizer are this one's share of them.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """What the forward pass of a micro-batch saves for the backward pass, logits and loss left out."""
    casts: int
    """Autocast's copies of the weights, which live as long as the activations."""
    logits: int
    """Log-probabilities that the loss saves."""
    runtime: int
    """What the process of a CPU takes besides tensors; 0 on a GPU, whose allocator does not see it."""
    exchange: int
    """What several processes take beside their own: buckets in which they add up gradients (DDP); where they share
    the weights (FSDP), the layers that are gathered at a time, their gradients, and what is outside of layers."""
    phases: dict[str, int]
    """Bytes at each phase of a step, everything included."""

    @property
    def total(self) -> int:
        """Weights, gradients and optimizer: what no smaller micro-batch can save."""
        return self.weights + self.gradients + self.optimizer

    @property
    def peak(self) -> int:
        """The most that training takes at any time."""
        return max(self.phases.values())


def estimate_memory(config: RunConfig, device_kind: str = "cpu", micro: int | None = None) -> MemoryEstimate:
    """Return the memory of a run on a device of this kind (`cpu`, or a GPU), by part and by phase.

    On a CPU the peak is the growth of the process; on a GPU what torch's allocator gives out, without its
    rounding to 512 bytes, cuBLAS's workspace and the CUDA context. The figures for a CPU were held against
    runs, of one process and of two; those for a GPU, and with it for fp16, tf32 and fp8, were derived from the
    same structure and not measured. A GPU is taken to have a fused attention for the shape, which needs heads
    of a multiple of 8. What torch.compile saves is not counted off.

    Args:
        micro: sequences of one forward pass, instead of the config's.
    """
    sequences = micro or micro_batch(config)
    accumulates = sequences < device_batch(config)
    by_heart = isinstance(config.model, GPTConfig) and not isinstance(config.task, ClassifyConfig | TagConfig)
    step = (_GPTStep if by_heart else _Step)(config, sequences, on_cpu=device_kind == "cpu", accumulates=accumulates)
    runtime = RUNTIME[config.precision.compute] if device_kind == "cpu" else 0
    exchange = step.gathered if step.shards > 1 else step.gradients if world_size(config) > 1 else 0
    fixed = step.weights + step.optimizer + runtime + exchange
    return MemoryEstimate(
        weights=step.weights,
        gradients=step.gradients,
        optimizer=step.optimizer,
        activations=step.activations,
        casts=step.casts,
        logits=step.log_probabilities,
        runtime=runtime,
        exchange=exchange,
        phases={name: fixed + size for name, size in step.phases().items()},
    )


def fitting_micro_batches(config: RunConfig, device_kind: str, room: float) -> list[int]:
    """Return the divisors of a device's share of the batch that fit into `room` bytes, less what is to be spared.

    The largest comes first; where none fits, the smallest there is.
    """
    each, room = device_batch(config), (1 - SPARE.get(device_kind, 0.3)) * room
    divisors = [size for size in range(each, 0, -1) if each % size == 0]
    return [size for size in divisors if estimate_memory(config, device_kind, size).peak <= room] or [1]


def saved_bytes(model: ModelConfig, value: int, stream: int, on_cpu: bool) -> int:
    """Return how much a forward pass keeps for the backward pass, for each sequence, logits left out.

    Per position and layer: what goes into each matmul, norm and activation, and the masks of dropout. Attention is
    fused and keeps none of its scores, but where a CPU is to drop some: then all, and in float32. Of a Hugging Face
    model only the size is known: it is taken for a GPT without dropout, which is about right for Llama and OPT there.
    Others keep more: GPT-2, whose GELU is not fused, five times as much with its dropout on a CPU at 128 tokens.

    Args:
        value: bytes of what goes into and comes out of a matmul.
        stream: bytes of what results are added to; where that is wider, autocast narrows it for each matrix anew.
    """
    width, layers, context = model.d_model or 0, model.n_layers or 0, model.context
    if isinstance(model, HFConfig):
        return context * (layers * (14 * value + 2 * stream) + value + stream) * width

    def read_by(matrices: int) -> int:
        """What one input of several matrices takes."""
        return width * value * (matrices if value < stream else 1)

    mask, first_mask = (width * (each if on_cpu else 1) if model.dropout else 0 for each in (value, stream))
    if isinstance(model, LSTMConfig):
        # oneDNN's workspace, but for its padding; or gates, state and its tangent.
        layer = width * (17 * value // 2 + 7 * WIDE) if on_cpu else 6 * width * value
        return context * (layers * (layer + width * value) + model.embedding_width * value + (layers - 1) * mask)
    hidden = model.d_feed_forward * value
    if isinstance(model, EncDecConfig):  # whose attention has no dropout, and whose ReLU keeps only what comes out
        block = read_by(3) + 4 * width * value + read_by(1) + hidden + 2 * (width * stream + mask)
        looks = read_by(1) + 2 * width * value + width * stream + mask  # a query and a mixture
        # Keys and values of the source, which all layers read off one memory, unless each narrows it for itself.
        looked_at = layers * 2 * width * value + (layers if value < stream else 1) * read_by(2)
        ends = first_mask + (width * stream if model.pre_norm else 0)
        source, target = layers * block + looked_at + ends, layers * (block + looks) + width * value + ends
        return model.source_context * source + context * target
    is_unfused = on_cpu and model.dropout > 0
    scores = 3 * model.n_heads * context * WIDE  # and the mask of dropout, and their product
    if isinstance(model, LlamaSection):

        def norm(size: int, element: int) -> int:
            """A CPU's is not fused: it widens, and keeps what it has divided."""
            return size * (WIDE + element if on_cpu else element)

        queries, keys = model.n_heads * model.d_head, model.kv_heads * model.d_head
        heads = 3 * queries * WIDE + scores if is_unfused else (queries + 2 * keys) * value
        if model.qk_norm:
            heads += norm(queries + keys, value) + (0 if is_unfused else queries * value)
        if isinstance(model, MoEConfig):
            used, shared = model.experts_per_token, model.n_shared_experts
            feed_forward = used * (read_by(2) + width * value) + 4 * (used + shared) * hidden + width * WIDE
            feed_forward += read_by(2) if shared and value < WIDE else 0  # the router reads in float32
        else:
            feed_forward = read_by(2) + 4 * hidden
        block = 2 * norm(width, stream) + read_by(3) + heads + queries * value + feed_forward + 2 * mask
        return context * (layers * block + norm(width, stream) + width * value + first_mask)
    heads = 3 * width * WIDE + scores if is_unfused else 3 * width * value
    is_bert = isinstance(model, BertConfig)  # its queries, keys and values are three matrices, its head has a layer
    attention = read_by(3 if is_bert else 1) + heads + width * value
    block = attention + read_by(1) + 2 * hidden + 2 * (width * stream + mask)
    return context * (layers * block + width * ((4 if is_bert else 1) * value + stream) + first_mask)


class _Step:
    """The bytes of one optimizer step on one device, of any family."""

    def __init__(self, run: RunConfig, sequences: int, on_cpu: bool, accumulates: bool) -> None:
        precision, model, task = run.precision, run.model, run.task
        self.count = count_run(run)
        self.run, self.on_cpu, self.accumulates, self.sequences = run, on_cpu, accumulates, sequences
        self.shards = world_size(run) if run.trainer.strategy == "fsdp" else 1
        self.weight = BYTES[precision.weights]  # bytes of a weight
        self.gradient = BYTES[precision.gradients]
        self.multiplied = BYTES[precision.compute]  # bytes of what goes into and comes out of a matmul
        self.is_autocast = precision.lightning in ("bf16-mixed", "16-mixed")
        self.params = -(-self.count.n_params // self.shards)  # that this process keeps
        self.weights = self.params * self.weight
        trained = -(-(self.count.n_params - self.count.n_params_frozen) // self.shards)
        self.gradients = trained * self.gradient
        moments = 2 if isinstance(run.optim, AdamConfig) else int(run.optim.momentum > 0)
        self.optimizer = trained * moments * BYTES[precision.optimizer]
        self.classes = model.vocab_size or 0
        self.predictions = sequences * model.context
        if isinstance(task, ClassifyConfig | TagConfig):
            self.classes = len(task.labels or [])
        if isinstance(task, ClassifyConfig):
            self.predictions = sequences

    @property
    def gathered(self) -> int:
        """What FSDP gathers at a time: a fair share for two layers and all that is outside of them, with gradients."""
        two_layers = 2 * self.count.n_params // (self.run.model.n_layers or 1)
        return self.count.n_params_embedding * self.weight + two_layers * (self.weight + self.gradient)

    @property
    def activations(self) -> int:
        """What the forward pass saves, logits left out."""
        if self.count.n_params_frozen:  # all that is kept is what the head reads
            return self.predictions * (self.run.model.d_model or 0) * self.multiplied
        return self.sequences * saved_bytes(self.run.model, self.multiplied, self.weight, self.on_cpu)

    @property
    def casts(self) -> int:
        """Copies of the weights in autocast's type."""
        idle = self.count.n_params - self.count.n_params_active  # experts that a token passes by are cast all the same
        return (self.count.n_params_matmul + idle) * self.multiplied if self.is_autocast else 0

    @property
    def log_probabilities(self) -> int:
        """The loss's float32 log-probabilities."""
        return self.predictions * self.classes * WIDE

    def phases(self) -> dict[str, int]:
        """Return the bytes of each phase, weights and optimizer left out."""
        logits, wide = self.predictions * self.classes * self.multiplied, self.log_probabilities
        saved = self.activations + self.casts
        before = self.gradients if self.accumulates else 0
        return {
            "loss": self.gradients + saved + logits + 2 * wide,
            "loss_backward": before + saved + 3 * wide,
            "backward": self.gradients + saved,
            "update": self.gradients,
        }


class _GPTStep(_Step):
    """The same of GPT with a head over its vocabulary, tensor by tensor."""

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
        return self.outside * self.weight + 2 * self.block_params * (self.weight + self.gradient)

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
        return ends + 3 * tokens * model.d_model * c + tokens * model.n_heads * WIDE

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
    def activations(self) -> int:
        """What is saved in all: positions, the layers, the last norm, the head's input."""
        head_input = self.tokens * self.model.d_model * self.multiplied
        positions = 8 * self.model.context
        return positions + self.dropout(self.stream) + self.model.n_layers * self.block + self.norm + head_input

    @property
    def casts(self) -> int:
        """Weights of all matrices in autocast's type; torchao's fp8 layers keep none."""
        if not self.is_autocast:
            return 0
        layers = 0 if self.run.precision.compute == "fp8" else self.model.n_layers * self.block_params
        return (layers + self.head) * self.multiplied

    @property
    def log_probabilities(self) -> int:
        """The loss's float32 log-probabilities, and the scalar it divides by."""
        return self.tokens * self.vocab * WIDE + WIDE

    # what stands at each phase, weights and optimizer left out

    def phases(self) -> dict[str, int]:
        """Return the bytes of each phase."""
        model, tokens, c = self.model, self.tokens, self.multiplied
        logits, wide_logits = tokens * self.vocab * c, tokens * self.vocab * WIDE
        widened = wide_logits if c < WIDE else 0
        saved = self.activations + self.casts
        before = self.gradients if self.accumulates else 0  # of earlier micro-batches
        stream = tokens * model.d_model
        head = self.head * self.gradient
        blocks = model.n_layers * self.block + self.dropout(self.stream)
        block_gradients = self.block_params * self.gradient // self.shards
        # Of what is outside of layers; they are shared out when the backward pass is over.
        whole_gradients = self.outside * self.gradient if self.shards > 1 else 0
        # Of the second projection: its gradient takes the place of its input, and GELU's comes beside it.
        inside = stream * self.stream + tokens * model.d_feed_forward * c + (stream * c if self.is_autocast else 0)
        if self.is_unfused:
            inside = max(inside, self.scores - self.feed_forward)
        block_casts = self.casts - (self.head * c if self.is_autocast else 0)
        # Where every score is kept, they are computed in float32 and narrowed to what the model computes in.
        narrowed = self.scores // 2 if self.is_unfused and c < WIDE else 0
        return {
            "scores": self.gradients + blocks + self.casts - self.feed_forward + narrowed,
            "loss": self.gradients + saved + logits + widened + wide_logits,
            "loss_backward": before + saved + 3 * wide_logits,
            "head_backward": before + saved + logits + max(widened, self.head * c),
            "first_block": before + blocks + block_casts + head + inside,
            "last_block": self.gradients - (0 if self.accumulates else block_gradients)
            + self.block + inside + self.dropout(self.stream) + (head if self.accumulates else 0) + whole_gradients,
            "embedding": self.gradients + self._embedding_gradients() + 2 * stream * self.stream + whole_gradients,
            "update": self.gradients + self._update(),
        }  # fmt: skip

    def _embedding_gradients(self) -> int:
        """Return what the gradients of a tied embedding take while its two uses are added up."""
        head = self.head * self.gradient
        tied = self.model.tie_embeddings
        return head * (int(self.accumulates) + int(tied) + int(tied and not self.is_autocast))

    def _update(self) -> int:
        """Return what the optimizer's step takes beside its state."""
        optim, precision = self.run.optim, self.run.precision
        if isinstance(optim, AdamConfig):
            unfused = precision.compute == "fp16"
            return self.gradients if unfused else 0
        copies = int(optim.weight_decay > 0) + int(optim.nesterov and optim.momentum > 0)
        # A CPU goes from weight to weight, a GPU through all of them at once.
        largest = max(self.head, self.model.d_model * self.model.d_feed_forward, 3 * self.model.d_model**2)
        return copies * (largest * self.gradient if self.on_cpu else self.gradients)
