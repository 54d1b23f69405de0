"""Whole folders in the form of the transformers library: config.json, model.safetensors, and the tokenizer's files."""

import json
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lmexp.config.base import fault_of
from lmexp.config.hf import quiet
from lmexp.config.models.base import ModelSection
from lmexp.config.models.hf import HFConfig
from lmexp.config.trust import is_shipped
from lmexp.errors import UserError, reason_of
from lmexp.files import flush_to_disk, read_json, visible_files
from lmexp.hub import lacking_weights
from lmexp.models.exchange import bert, gpt, llama
from lmexp.models.exchange.labels import add_head, how_to_read, label_settings, save_library_model
from lmexp.models.finite import check_finite
from lmexp.models.hf import HFModel, HFSeq2Seq
from lmexp.models.labels import LabelModel

CONFIG, WEIGHTS = "config.json", "model.safetensors"
REPEATED = ("n_layer", "num_hidden_layers", "num_local_experts", "num_experts")
"""Settings that say how often something with weights is there."""
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

    @property
    def pad_id(self) -> int:
        """The id that pads texts."""

    def library_files(self, with_mask: bool, context: int, begins_documents: bool = True) -> dict[str, str]:
        """Return the files, by name, of which the library's AutoTokenizer makes a tokenizer that does what runs do."""


@runtime_checkable
class Original(Protocol):
    """A tokenizer that came from the library."""

    def original_files(self, with_mask: bool, context: int) -> dict[str, str]:
        """Return its files as they came, by name."""


def export_folder(
    config: ModelSection,
    model: nn.Module,
    tokenizer: Exportable,
    folder: Path,
    labels: Sequence[str] = (),
    target_tokenizer: Exportable | None = None,
) -> str | None:
    """Write a folder of which the library's AutoModelFor... makes a model with equal logits, and AutoTokenizer the ids.

    It is written under another name and then renamed, so that it is complete or missing.

    Args:
        labels: the names of what a head over labels scores.
        target_tokenizer: that of targets, if it is not the same; its folder is `target_tokenizer`.

    Returns what must be known to read the output, if the library has nothing that says so itself. Raises UserError: a
    folder that is there and not empty or cannot be written, a family that the library does not have or that is not
    lmexp's own, a head over labels that it has no form for, positions that it would count in another way.
    """
    if config.family not in {*TO_HF, "hf"} or not is_shipped(config.module):
        raise UserError(
            f"transformers has no model like family {config.family} of {config.module}, so it cannot be exported; "
            f"there are {', '.join(TO_HF)} and hf. Its weights are in checkpoints/final/model.safetensors of the run"
        )
    folder = folder.expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already, and not an empty folder")
    is_pretrained = isinstance(config, HFConfig) and config.fingerprint is not None
    library = model.body if isinstance(model, LabelModel) else model
    if isinstance(library, HFModel) and not is_pretrained and library.numbered_from is not None:
        raise UserError(
            f"{config.name} cannot be exported: transformers computes its positions from the padding token, which a "
            "model that began with fresh weights does not have"
        )
    files = {} if target_tokenizer is None else _tokenizer_files(config, model, target_tokenizer, "target_tokenizer/")
    files |= _tokenizer_files(config, model, tokenizer)
    note = None
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        aside.mkdir(parents=True)
        if isinstance(model, LabelModel):
            note = _write_label_model(config.family, model, aside, labels, tokenizer)
        else:
            _write_model(config, model, aside, target_tokenizer or tokenizer)
        for name, content in files.items():
            (aside / name).parent.mkdir(exist_ok=True)
            (aside / name).write_text(content, encoding="utf-8")
        flush_to_disk(*aside.rglob("*"), aside)
        aside.rename(folder)
        flush_to_disk(folder.parent)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return note


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
    if heads := [name for name in settings.get("architectures") or [] if str(name).endswith("Classification")]:
        raise UserError(f"{folder} holds a head over labels ({heads[0]}); only models that predict tokens are imported")
    if not files:
        raise lacking_weights(str(folder), [file.name for file in folder.iterdir()])
    weights: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                weights |= {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118 (no mapping)
        except Exception as error:  # damaged files, by the library's many names
            raise UserError(f"cannot read {file}: {reason_of(error)}") from error
    check_finite(weights, folder)
    for key in REPEATED:  # before names for so many are made
        if isinstance(count := settings.get(key), int) and count > len(weights):
            raise UserError(f"{folder}/{CONFIG}: {key}={count}, and there are {len(weights)} weights in all")
    try:
        config, ours = FROM_HF[model_type](settings, weights, **({"name": name} if name else {}))
        config.check()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{folder}/{CONFIG}: {key}={first['input']!r}: {fault_of(first)}") from error
    except (TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:  # a value of a wrong kind
        raise UserError(f"{folder}/{CONFIG} describes no model of type {model_type}: {reason_of(error)}") from error
    return config, ours


def _tokenizer_files(config: ModelSection, model: nn.Module, tokenizer: Exportable, place: str = "") -> dict[str, str]:
    """Return the files of a tokenizer, by their paths in the folder.

    A pretrained model that still predicts tokens keeps the original files. Every other model gets a tokenizer that
    gives a text the ids that the run gave it: a source of a pair does not begin with the token of documents.
    """
    rows, mask = config.vocab_size or 0, tokenizer.own_mask_id
    with_mask = config.reads == "both_ways" and mask is not None and mask < rows
    is_pretrained = isinstance(config, HFConfig) and config.fingerprint is not None
    if is_pretrained and isinstance(tokenizer, Original) and not isinstance(model, LabelModel):
        files = tokenizer.original_files(with_mask, config.context)
    else:
        files = tokenizer.library_files(with_mask, config.context, config.reads != "source_to_target")
    return {f"{place}{name}": content for name, content in files.items()}


@torch.no_grad()
def _write_model(config: ModelSection, model: nn.Module, folder: Path, tokenizer: Exportable) -> None:
    """Write config.json and the weights, with the ids that begin, end and pad a text."""
    if isinstance(model, HFModel | HFSeq2Seq):
        if isinstance(config, HFConfig) and config.fingerprint is None:
            _name_document(model.model, tokenizer)
        with quiet():
            model.model.save_pretrained(folder)
        return
    settings, weights = TO_HF[config.family](model)
    settings |= _special(settings, tokenizer.bos_id)
    _write_files(settings, weights, folder)


@torch.no_grad()
def _write_label_model(
    family: str, model: LabelModel, folder: Path, labels: Sequence[str], tokenizer: Exportable
) -> str | None:
    """Write config.json and the weights of a model with a head over labels; return what must be known to read it."""
    named = label_settings(labels, tokenizer.pad_id)
    if isinstance(model.body, HFModel):
        auto = save_library_model(model, named, folder)
    else:
        settings, weights = TO_HF[family](model.body)
        settings |= _special(settings, tokenizer.bos_id) | named
        auto = add_head(settings, weights, model)
        _write_files(settings, weights, folder)
    return how_to_read(auto, model.pooling)


def _write_files(settings: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> None:
    (folder / CONFIG).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    save_file(
        {name: weight.detach().contiguous() for name, weight in weights.items()}, folder / WEIGHTS, {"format": "pt"}
    )


def _special(settings: Mapping[str, Any], document: int) -> dict[str, int]:
    """Return the ids of special tokens that a config names."""
    return {key: document for key in ("bos_token_id", "eos_token_id") if key in settings}


def _name_document(model: Any, tokenizer: Exportable) -> None:
    """Say in a fresh library model's configs what begins, ends and pads its texts: those of its architecture do not."""
    known = dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.bos_id) | {"pad_token_id": tokenizer.pad_id}
    if model.config.is_encoder_decoder:
        known["decoder_start_token_id"] = tokenizer.bos_id
    for config in filter(
        None, (model.config, getattr(model, "generation_config", None))
    ):  # an encoder generates nothing
        for key in ("forced_bos_token_id", "forced_eos_token_id"):  # of BART's kind
            if getattr(config, key, None) is not None:
                setattr(config, key, None)
        for key, token in known.items():
            setattr(config, key, token)
