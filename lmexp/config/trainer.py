"""The `trainer` section: which devices train a run, and Lightning's own options."""

from typing import Literal

from lmexp.config.base import Count, Section

Recompute = Literal["none", "selective", "full"]
"""What activation checkpointing computes again in the backward pass; see TrainerConfig.activation_checkpointing."""


class TrainerConfig(Section):
    """Lightning's own Trainer options; lmexp sets the others (steps, accumulation, loggers, validation)."""

    accelerator: str = "auto"
    devices: Count = 1
    """How many devices train a run together; which ones is the launcher's business."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several devices share a run. ddp, which auto means there, gives each the whole model; fsdp gives each a
    part of every weight, its gradient and its optimizer state (torch's fully_shard)."""
    num_nodes: Count = 1
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    inference_mode: bool = True
    detect_anomaly: bool = False
    sync_batchnorm: bool = False
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    enable_model_summary: bool = False
    enable_progress_bar: bool = False
    compile: bool | Literal["auto"] = "auto"
    """Whether torch.compile compiles the layers and the loss. This takes seconds once, and GPUs are then faster.
    `auto`: on CUDA devices, for lmexp's own families and tasks whose batches have one shape; see train/compiling.py."""
    activation_checkpointing: Recompute = "none"
    """What the layers compute again in the backward pass, to keep less memory; losses and gradients stay the same.
    `full`: their whole forward pass, for about a third more FLOPs. `selective`: all but matmuls and attention."""
    log_every: Count = 10
    """Optimizer steps between two points of the curve (ours; Lightning's own logging is off)."""
