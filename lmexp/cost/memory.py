"""Memory that training takes at its most, from the config alone, by named parts.

A step's memory rises and falls, and what is highest depends on the shape: the logits where the vocabulary is
large, what the backward pass needs where the micro-batch is large, gradients and optimizer where the model is.
So the estimate walks through a step and keeps the bytes of each phase:

    scores          the last layer's attention, where dropout on a CPU has it keep every score
    loss            the forward pass is over: logits and their float32 log-probabilities stand; gradients only if
                    there are earlier micro-batches, because they are dropped after each optimizer step
    loss_backward   gradients of the log-probabilities and of the logits, all in float32
    head_backward   gradients of the logits, and of the head's weights
    first_block     the last layer's backward pass, most of what the forward pass saved still there
    last_block      the first layer's: all gradients but its own there, hardly anything saved
    embedding       all gradients, and those of a tied embedding twice until they are added up
    update          all gradients, and what the optimizer needs beside them

So it is for GPT (memory_gpt.py), where what autograd saves was read off torch 2.13 and is held equal to it, to the
byte, in a test. For the other families, and heads over labels, the phases are fewer (memory_step.py), and what is
saved is what the family's section says in `saved_bytes`: only what is large, held by a test to within a fifth of what
autograd saves, in float32 a tenth. A family that says nothing has the general rule of ModelSection, which is rough.
Activation checkpointing keeps the layers' inputs, and with `selective` what their matmuls and attention give out; the
layer that goes backward needs the rest anew.
A private step keeps the gradients of the layers' outputs until it knows the norms of all sequences. They are added to
every phase, which is a rough estimate.
Evaluation takes less than training: it saves nothing. Checkpoints are written by way of a copy in memory on the host,
which is left out, here as by the meter (see cost/memory_meter.py).
"""

from dataclasses import dataclass

from lmexp.config.checks import device_batch, micro_batch
from lmexp.config.models.gpt import GPTConfig
from lmexp.config.schema import RunConfig
from lmexp.cost.device import compiles_bf16
from lmexp.cost.memory_gpt import GPTStep
from lmexp.cost.memory_step import Step

RUNTIME = {"fp32": 3_500_000, "tf32": 3_500_000, "bf16": 13_000_000, "fp16": 13_000_000, "fp8": 13_000_000}
"""What a process on a CPU takes besides tensors, by what matrices are multiplied in: imports on first use, and
kernels that oneDNN compiles. Seen in 48 runs on an x86 with AMX (benchmarks/memory.py): 3 to 12 MB in fp32, where
it grows with the matrices, and 10 to 18 MB in bf16. Where oneDNN compiles no kernels for bf16, bf16 is multiplied in
float32 (cpu_products.py), and takes what fp32 takes."""

GPU_WORKSPACES = 2 * 2**25
"""cuBLAS takes 32 MiB on Hopper in each of the two threads that multiply, forward and backward (torch's notes on CUDA
semantics, "cuBLAS workspaces"); older GPUs take 8."""

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
    """What the loss keeps for the backward pass."""
    runtime: int
    """What the process takes besides the tensors of training; on a GPU, cuBLAS's workspaces."""
    exchange: int
    """What several processes take beside their own: buckets in which they add up gradients (DDP), and where these lie
    unless a step has several micro-batches; where they share the weights (FSDP), the layers that are gathered at a
    time, their gradients, and what is outside of layers."""
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
    rounding to 512 bytes and the CUDA context. The figures for a CPU were compared with runs, of one process and of
    two; those for a GPU were derived from the same structure, and compared with an H200 (docs/gpu.md). A GPU is taken
    to have a fused attention for the shape, which needs heads of a multiple of 8. What torch.compile saves is not
    subtracted: on that H200, a compiled run took as much as in eager mode (GPT-2 small) or 20 % less (llama_1b),
    depending on what is fused, and in which order. So a compiled run gets the micro-batch that fits in eager mode.

    Args:
        micro: sequences of one forward pass, instead of the config's.
    """
    sequences = micro or micro_batch(config)
    accumulates = sequences < device_batch(config) or config.privacy.is_on  # a step may draw more than it expects
    is_exact = isinstance(config.model, GPTConfig) and config.task.head == "vocabulary"
    step = (GPTStep if is_exact else Step)(config, sequences, on_cpu=device_kind == "cpu", accumulates=accumulates)
    multiplied_in = config.precision.compute if compiles_bf16() else "fp32"
    runtime = RUNTIME[multiplied_in] if device_kind == "cpu" else GPU_WORKSPACES
    exchange = step.gathered if step.shards > 1 else step.gradients if step.has_buckets else 0
    fixed = step.weights + step.optimizer + runtime + exchange + step.kept_to_clip
    return MemoryEstimate(
        weights=step.weights,
        gradients=step.gradients,
        optimizer=step.optimizer,
        activations=step.activations,
        casts=step.casts,
        logits=step.kept_by_loss,
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
