"""Checkpoints: last.ckpt while a run trains, final/ when it is done.

last.ckpt is Lightning's, read with `weights_only`, so that nothing in it can run. final/ holds the weights
as safetensors beside the config and the tokenizer: all that it takes to use the model elsewhere.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import nn

from lmexp.config.schema import RunConfig
from lmexp.data.store import Store
from lmexp.data.tokenizers import Tokenizer, load_tokenizer
from lmexp.errors import UserError, reason_of
from lmexp.files import write_atomically
from lmexp.models.build import build_model
from lmexp.runs.directory import RunDir, dump_config

WEIGHTS, TOKENIZER, CONFIG = "model.safetensors", "tokenizer.json", "config.yaml"


def last_checkpoint(run: RunDir) -> Path:
    """Return where the state of training is kept."""
    return run.checkpoints / "last.ckpt"


def resumable_progress(run: RunDir, leader: bool) -> dict[str, float] | None:
    """Return how far the run in last.ckpt had come, as Progress keeps it; None where there is none.

    One that cannot be read is set aside as last.ckpt.damaged, by the leader, and said; the run then starts
    over. Every process of a run comes to the same answer, whether it sees the file before or after.
    """
    file = last_checkpoint(run)
    if not file.exists():
        return None
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        progress = content["callbacks"]["Clock"]["progress"]
        return {name: float(progress[name]) for name in ("steps", "seconds", "step_seconds")}
    except Exception as error:  # what a damaged zip of pickles raises is anybody's guess
        if not leader:
            return None
        aside = file.with_suffix(".ckpt.damaged")
        file.replace(aside)
        print(f"{file} cannot be read ({reason_of(error)}); set aside as {aside.name}; starting over")
        return None


def save_final(run: RunDir, model: nn.Module, config: RunConfig, store: Store) -> None:
    """Write final/ aside, then rename it into place."""
    draft = run.checkpoints / ".final"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_model(model, str(draft / WEIGHTS))
    write_atomically(draft / CONFIG, dump_config(config))
    store.tokenizer().save(draft / TOKENIZER)
    shutil.rmtree(run.final, ignore_errors=True)
    draft.rename(run.final)


def load_final(run: RunDir) -> tuple[RunConfig, nn.Module, Tokenizer]:
    """Return a finished run's config, model (on the CPU, in evaluation mode) and tokenizer.

    Raises UserError when the run has no finished model, or its files do not fit together.
    """
    if not (run.final / WEIGHTS).is_file():
        raise UserError(f"{run.path} has no finished model: the run is {run.read_state().state}")
    config, tokenizer = RunDir(run.final).read_config(), load_tokenizer(run.final / TOKENIZER)
    try:
        model = build_model(config.model, config.seed)
        load_model(model, str(run.final / WEIGHTS))
    except Exception as error:
        raise UserError(f"{run.final / WEIGHTS} cannot be read: {reason_of(error)}") from None
    if tokenizer.vocab_size > (config.model.vocab_size or 0):
        raise UserError(f"{run.final}: the tokenizer has more entries than the model")
    return config, model.eval(), tokenizer
