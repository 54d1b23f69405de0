"""Lightning's Trainer for a run: what lmexp sets in it, and the habits of it that lmexp switches off."""

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy

from lmexp.config.checks import accumulation, copies_the_model, world_size
from lmexp.config.schema import RunConfig
from lmexp.runs.directory import RunDir


class LocalCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint straight to a local file.

    Lightning's own first makes a copy of it in memory, and imports the clients of all object stores that are installed,
    which takes longer than a small run.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`; the caller renames it when it is whole."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)


def build_trainer(config: RunConfig, run: RunDir) -> pl.Trainer:
    """Return a Trainer with the options of the config's `trainer` section; lmexp sets the rest."""
    options = config.trainer.model_dump(exclude={"log_every", "compile", "activation_checkpointing"})
    if config.trainer.strategy == "fsdp":
        options["strategy"] = ModelParallelStrategy(world_size(config), 1, save_distributed_checkpoint=False)
    elif copies_the_model(config):  # gradients lie in the buckets that are added up, and not beside them
        options["strategy"] = DDPStrategy(gradient_as_bucket_view=True)
    # The environment is named, so that in a Slurm allocation Lightning neither checks tasks nor requeues the job.
    is_alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    trainer = pl.Trainer(
        **options,
        plugins=[LightningEnvironment() if is_alone else TorchElasticEnvironment(), LocalCheckpoints()],
        precision=config.precision.lightning,
        max_epochs=-1,  # Clock stops the run when its budget is spent
        accumulate_grad_batches=accumulation(config),
        default_root_dir=run.path,
        logger=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,  # the batches are already split over the ranks
    )
    # lmexp handles signals itself (stopping.py). Lightning's handler of SIGTERM would communicate in the middle of a
    # step, and to find out about the signal all processes would wait for each other, and their devices, at each batch.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer
