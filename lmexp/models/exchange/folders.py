"""Whole folders in the form of the transformers library: config.json, model.safetensors, and the tokenizer's files."""

import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lmexp.config.hf import quiet
from lmexp.config.models.base import ModelSection
from lmexp.config.trust import is_shipped
from lmexp.errors import UserError, reason_of
from lmexp.files import flush_to_disk, read_json, visible_files
from lmexp.hub import lacking_weights
from lmexp.models.exchange import bert, gpt, llama
from lmexp.models.hf import HFModel, HFSeq2Seq
from lmexp.models.labels import LabelModel

CONFIG, WEIGHTS = "config.json", "model.safetensors"
TO_HF: dict[str, Callable[[Any], tuple[dict[str, Any], dict[str, Tensor]]]] = {
    "gpt": gpt.to_hf,
    "llama": llama.to_hf,
    "moe": llama.to_hf,
    "bert": bert.to_hf,
}
"""The export function of each family that has a counterpart in the library."""
FROM_HF: dict[str, Callable[..., tuple[ModelSection, dict[str, Tensor]]]] = {
    "gpt2": gpt.from_hf,
    "bert": bert.from_hf,
    **dict.fromkeys(llama.CLASSES, llama.from_hf),
}
"""The import function of each of the library's architectures that has a counterpart here, by its name there."""


class Exportable(Protocol):
    """What is asked of a tokenizer."""

    bos_id: int
    own_mask_id: int | None

    def library_files(self, with_mask: bool) -> dict[str, str]:
        """Return the files, by name, of which the library's AutoTokenizer makes a tokenizer with the same ids."""


def export_folder(config: ModelSection, model: nn.Module, tokenizer: Exportable, folder: Path) -> None:
    """Write a folder of which the library's AutoModelFor... makes a model with equal logits, and AutoTokenizer the ids.

    It is written aside and renamed: there is a whole one or none. Raises UserError: a folder that is there and not
    empty or cannot be written, a family that the library does not have or that is not lmexp's own, a head over labels.
    """
    if isinstance(model, LabelModel):
        raise UserError("a model with a head over labels cannot be exported: only one that predicts tokens")
    if config.family not in {*TO_HF, "hf"} or not is_shipped(config.module):
        raise UserError(
            f"transformers has no model like family {config.family} of {config.module}, so it cannot be exported; "
            f"there are {', '.join(TO_HF)} and hf. Its weights are in checkpoints/final/model.safetensors of the run"
        )
    folder = folder.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already, and not an empty folder")
    predicts_hidden = config.reads == "both_ways"
    rows, mask = config.vocab_size or 0, tokenizer.own_mask_id
    files = tokenizer.library_files(predicts_hidden and mask is not None and mask < rows)
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        aside.mkdir(parents=True)
        _write_model(config.family, model, aside, tokenizer.bos_id)
        for name, content in files.items():
            (aside / name).write_text(content, encoding="utf-8")
        flush_to_disk(*aside.iterdir(), aside)
        aside.rename(folder)
        flush_to_disk(folder.parent)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def import_folder(folder: Path, name: str | None = None) -> tuple[ModelSection, dict[str, Tensor]]:
    """Return the config and the weights of a model of ours with the logits of the library's model in a folder.

    The config is called `name`, or as its family is. Only config.json and safetensors are read; what goes with
    `HFConfig.pretrained` is the library's own model instead, of any architecture. Raises UserError.
    """
    folder = folder.expanduser()
    files = visible_files(folder, "*.safetensors")
    try:
        settings = read_json(folder / CONFIG)
        model_type = settings["model_type"]
    except FileNotFoundError as error:
        raise UserError(f"{folder}: there is no {CONFIG}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/{CONFIG} says no model_type, or cannot be read") from error
    if model_type not in FROM_HF:
        known = ", ".join(FROM_HF)
        raise UserError(f"{folder} holds a model of type {model_type}; weights are taken over from {known}")
    if not files:
        raise lacking_weights(str(folder), [file.name for file in folder.iterdir()])
    weights: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                weights |= {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118 (no mapping)
        except Exception as error:  # damaged files, by the library's many names
            raise UserError(f"cannot read {file}: {reason_of(error)}") from error
    return FROM_HF[model_type](settings, weights, **({"name": name} if name else {}))


@torch.no_grad()
def _write_model(family: str, model: nn.Module, folder: Path, document: int) -> None:
    """Write config.json and the weights; `document` begins and ends a text."""
    if isinstance(model, HFModel | HFSeq2Seq):
        with quiet():
            model.model.save_pretrained(folder)
        return
    settings, weights = TO_HF[family](model)
    settings |= _special(settings, document)
    (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    save_file(
        {name: weight.detach().contiguous() for name, weight in weights.items()}, folder / WEIGHTS, {"format": "pt"}
    )


def _special(settings: Mapping[str, Any], document: int) -> dict[str, int]:
    """Return the ids of special tokens that a config names."""
    return {key: document for key in ("bos_token_id", "eos_token_id") if key in settings}
