"""Checkpoints: last.ckpt and, with milestones, trunk.ckpt while a run trains, final/ when it is done.

last.ckpt and trunk.ckpt are checkpoints of Lightning's, read with `weights_only`, so that no code in them can run. The
run goes on from last.ckpt if it is stopped, and from trunk.ckpt after the cool-down to a milestone. final/ has the
weights as safetensors with the config and the tokenizer: everything that is needed to use the model elsewhere.
"""

import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytorch_lightning as pl
import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.distributed.fsdp import FSDPModule

from lmexp.config.outside import check_trust
from lmexp.config.schema import RunConfig
from lmexp.cost.step_meter import StepMeter
from lmexp.data.order import Method
from lmexp.data.tokenizers.base import Tokenizer
from lmexp.data.tokenizers.build import load_tokenizer
from lmexp.errors import UserError, reason_of
from lmexp.files import write_atomically
from lmexp.models.build import build_model
from lmexp.models.finite import check_finite
from lmexp.models.labels import LabelModel
from lmexp.runs.directory import WEIGHTS, RunDir, dump_config
from lmexp.tasks.base import Task
from lmexp.train.old_checkpoint import stack_checkpoint
from lmexp.train.spending import Spent

TOKENIZER, CONFIG = "tokenizer.json", "config.yaml"
TARGET_TOKENIZER = "target_tokenizer.json"
"""Written if source and target have tokenizers of their own."""


def last_checkpoint(run: RunDir) -> Path:
    """Return the file that the state of training is kept in."""
    return run.checkpoints / "last.ckpt"


def trunk_checkpoint(run: RunDir) -> Path:
    """Return the file that holds the state where the last cool-down to a milestone branched off."""
    return run.checkpoints / "trunk.ckpt"


def resumable_progress(file: Path, task: Task, trainer: pl.Trainer, leader: bool) -> dict[str, Any] | None:
    """Return the progress that a checkpoint holds, as `Progress.state_dict` has it; None if the file is not usable.

    A file that cannot be read, or that does not fit the task and the trainer, is set aside as `.ckpt.damaged` by the
    leader, with a message; the run then starts over. Every process of a run gets the same answer, whether it reads the
    file before or after that.
    """
    if not file.exists():
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            if broken := archive.testzip():  # torch.load does not check the checksums that torch.save wrote
                raise ValueError(f"the checksum of {broken} is wrong")
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        stack_checkpoint(content, task)
        _check_weights(content["state_dict"], task)
        if best := content["callbacks"].get("Evaluation"):
            _check_weights(best["best"]["weights"], task)
        _check_optimizer(content["optimizer_states"], task)
        return _check_rest(content, trainer)
    except Exception as error:  # a damaged zip of pickles can raise anything
        if not leader:
            return None
        aside = file.with_suffix(".ckpt.damaged")
        file.replace(aside)
        print(f"{file} cannot be used ({reason_of(error)}); set aside as {aside.name}; starting over")
        return None


def _check_weights(weights: dict[str, Any], task: Task) -> None:
    """Raise ValueError if a weight is missing, unknown or of another shape."""
    own, kept = ({n: value.shape for n, value in d.items()} for d in (task.state_dict(), weights))
    if own != kept:
        name = min(name for name in own.keys() | kept.keys() if own.get(name) != kept.get(name))
        raise ValueError(f"its weights are not the model's: {name}")


def _check_optimizer(states: list[dict[str, Any]], task: Task) -> None:
    """Raise ValueError if the optimizer's state does not fit the weights.

    State is numbered by the position of its weight in the optimizer; of a sharded model, by its position in the model.
    """
    (kept,), optimizer, config = states, task.configure_optimizers(), task.config.optim
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if task.config.trainer.strategy == "fsdp":
        weights = list(task.parameters())
    if [len(g["params"]) for g in kept["param_groups"]] != [len(g["params"]) for g in optimizer.param_groups]:
        raise ValueError("the optimizer has other weights")
    # The state of some optimizers is not known; such an optimizer itself must complain.
    moments, of_matrices = config.moments or (), config.matrix_moments or ()
    if (moments or of_matrices) and not kept["state"]:
        raise ValueError("the optimizer's state is missing")
    n_matrices = len(optimizer.param_groups[0]["params"]) if of_matrices != moments else 0
    for which, state in kept["state"].items():
        names = of_matrices if which < n_matrices else moments
        if any(state[moment].shape != weights[which].shape for moment in names):
            raise ValueError(f"the optimizer's state does not fit weight {which}")


def _check_rest(content: dict[str, Any], trainer: pl.Trainer) -> dict[str, Any]:
    """Return the progress. Raises ValueError if Lightning or a callback would miss something."""
    needed = ["lr_schedulers", "pytorch-lightning_version"]  # Lightning needs these
    if trainer.precision_plugin.state_dict():  # the scale of fp16's loss
        needed.append(type(trainer.precision_plugin).__qualname__)
    if missing := [name for name in needed if name not in content]:
        raise ValueError(f"it has no {missing[0]}")
    clock, spent = content["callbacks"]["Clock"], content["callbacks"]["Spending"]
    StepMeter(1).load_state_dict(clock["meter"])
    Spent(**spent)
    progress = clock["progress"]
    if progress.get("order", "sorted") not in get_args(Method):
        raise ValueError("it takes the samples in an order that is not known")
    return {**progress, **{name: float(progress[name]) for name in ("steps", "seconds", "step_seconds")}}


@dataclass(frozen=True)
class Loaded:
    """A finished run, loaded."""

    config: RunConfig
    model: nn.Module
    """In evaluation mode; as it is loaded, on the CPU."""
    tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    """The tokenizer of targets; the same as `tokenizer` unless source and target have one each."""


def whole(model: nn.Module, config: RunConfig) -> nn.Module:
    """Gather the weights of a sharded model on rank 0; collective, call on every rank.

    Other ranks, and all ranks of a model that is not sharded, get `model` itself.
    """
    if not isinstance(model, FSDPModule):
        return model
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not weights:
        return model
    full = build_shape(config).to(next(model.parameters()).dtype)
    full.load_state_dict(weights)
    return full


def save_final(
    run: RunDir, model: nn.Module, config: RunConfig, tokenizer: Tokenizer, target_tokenizer: Tokenizer | None = None
) -> None:
    """Write final/ under another name, then rename it; `target_tokenizer` is for targets that have one of their own."""
    draft = run.checkpoints / ".final"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    save_model(model, str(draft / WEIGHTS))
    write_atomically(draft / CONFIG, dump_config(config))
    tokenizer.save(draft / TOKENIZER)
    if target_tokenizer is not None:
        target_tokenizer.save(draft / TARGET_TOKENIZER)
    shutil.rmtree(run.final, ignore_errors=True)
    draft.rename(run.final)


def load_weights(model: nn.Module, run: Path, freeze: bool) -> None:
    """Copy the weights of a finished run into a model of the same shape; a head over labels keeps its own.

    Args:
        freeze: whether the copied weights are then excluded from training.

    Raises UserError if the run has no finished model, or a weight is missing or has another shape.
    """
    body = _body(model)
    weights, own = _body(load_final(RunDir(run)).model).state_dict(), body.state_dict()
    for name, weight in own.items():
        if name not in weights or weights[name].shape != weight.shape:
            raise UserError(f"init.run={run} has no weights for {name}, {tuple(weight.shape)}")
    body.load_state_dict({name: weights[name] for name in own})
    if freeze:
        body.requires_grad_(False)


def _body(model: nn.Module) -> nn.Module:
    return model.body if isinstance(model, LabelModel) else model


def build_shape(config: RunConfig) -> nn.Module:
    """Return the model of a run for weights that are about to be loaded; no pretrained weights are looked for."""
    return build_model(config.model.without_weights(), config.seed, config.task)


def load_final(run: RunDir) -> Loaded:
    """Load a finished run. Raises UserError if it has no finished model, or its files do not fit together."""
    if not (run.final / WEIGHTS).is_file():
        raise UserError(f"{run.path} has no finished model: the run is {run.read_state().state}")
    config = RunDir(run.final).read_config()
    check_trust(config)
    tokenizer = load_tokenizer(run.final / TOKENIZER)
    target = run.final / TARGET_TOKENIZER
    target_tokenizer = load_tokenizer(target) if target.is_file() else tokenizer
    try:
        model = build_shape(config)
        load_model(model, str(run.final / WEIGHTS))
        check_finite(dict(model.named_parameters()), run.final / WEIGHTS)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{run.final / WEIGHTS} cannot be read: {reason_of(error)}") from None
    rows = getattr(config.model, "input_vocab_size", None) or config.model.vocab_size or 0
    if tokenizer.vocab_size > rows or target_tokenizer.vocab_size > (config.model.vocab_size or 0):
        raise UserError(f"{run.final}: the tokenizer has more entries than the model")
    return Loaded(config, model.eval(), tokenizer, target_tokenizer)
