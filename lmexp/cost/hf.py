"""What a model of the transformers library is, holds and costs: read off the library, once, when a config is resolved.

Its architectures have no formula here. So one sequence goes forward and backward through the model on the meta
device, which takes neither memory nor time, and torch counts what is multiplied. From there on the numbers stand in
the config, and nothing that counts needs torch.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmexp.config.hf import (
    HEADS,
    attention_spans,
    check_looks_back,
    check_positions,
    first_position,
    folder_of,
    library_config,
    positions_of,
    quiet,
    settled_config,
    state_width,
)
from lmexp.config.models.base import ModelSize
from lmexp.config.models.count import whole
from lmexp.config.models.hf import HFConfig
from lmexp.errors import UserError, reason_of
from lmexp.files import hash_files, visible_files
from lmexp.hub import commit_of, lacking_weights

if TYPE_CHECKING:
    from torch import nn


def describe(config: HFConfig) -> HFConfig:
    """Fill in what the library knows of a model: name, sizes, and all of its config, to build it without its folder.

    The vocabulary of a fresh one stays the tokenizer's, unless the config says otherwise. Raises UserError.
    """
    theirs = library_config(config)
    text = theirs.get_text_config()
    own = config.pretrained is not None or "vocab_size" in config.config
    known: dict[str, Any] = {
        "n_layers": getattr(text, "num_hidden_layers", None),
        "d_model": state_width(theirs),
        "n_heads": getattr(text, "num_attention_heads", None),
        "vocab_size": text.vocab_size if own else config.vocab_size,
    }
    if config.name == "hf":
        known["name"] = (config.pretrained or theirs.model_type).rstrip("/").rsplit("/", 1)[-1]
    if config.pretrained is not None:
        known |= {"model_type": theirs.model_type, "config": settled_config(config)}
    return config.model_copy(update=known)


def measure(config: HFConfig) -> ModelSize:
    """Count a model whose vocabulary is resolved, at sequences of the full context. Raises UserError.

    Attention's scores are told from the rest by the operation: products of activations, outside of experts, whose
    weights come in stacks as well. Of a decoder's scores, half are those on the source, which is as long. Where a
    window slides along, torch counts all scores, those within it count here; of a seq2seq architecture, all do.
    """
    import torch
    import transformers

    theirs = library_config(config)
    with quiet():
        auto = getattr(transformers, HEADS[config.predicts][0])
        options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": config.trust_remote_code}
        if _has_experts(theirs):
            options["experts_implementation"] = "batched_mm"  # others' products torch does not count
        try:
            with torch.device("meta"):
                model = auto.from_config(theirs, **options)
            check_looks_back(config, model)
            check_positions(config, model)
            return _measure(model, config)
        except UserError:
            raise
        except Exception as error:  # an architecture that cannot go through the meta device
            raise UserError(f"{config.name} cannot be counted: {reason_of(error)}") from error


def usable_positions(config: HFConfig) -> int | None:
    """Return how many tokens a pretrained model has positions for, whatever its `context`; None if there is no limit.

    If the library computes positions from the padding token, the first ones that its config counts cannot be used.
    Raises UserError.
    """
    import torch
    import transformers

    theirs = library_config(config.model_copy(update={"context": 1}))
    positions = positions_of(theirs)
    if positions is None:
        return None
    with quiet(), torch.device("meta"):
        auto = getattr(transformers, HEADS[config.predicts][0])
        try:
            model = auto.from_config(theirs, trust_remote_code=config.trust_remote_code)
        except Exception as error:
            raise UserError(f"{config.name} cannot be built: {reason_of(error)}") from error
    return positions - (first_position(model) or 0)


def _has_experts(theirs: Any) -> bool:
    return any("expert" in key for key in theirs.get_text_config().to_dict())


def _measure(model: Any, config: HFConfig) -> ModelSize:
    from torch import nn

    length, positions = config.context, config.sequence_tokens
    flops = _flops(model, length)
    if any("convolution" in str(operation) for operation in flops["Global"]):
        raise UserError(f"{config.name} has convolutions, whose backward pass torch does not count right")
    total = sum(flops["Global"].values())
    experts = _experts(flops, type(model).__name__)
    scores = _scores(flops["Global"]) - experts
    table = model.get_output_embeddings()
    head = 6 * table.weight.numel() * length
    parts = {"attention_scores": scores, "head": head}
    if config.predicts == "seq2seq":
        encoder = next(name for name, module in model.named_modules() if module is model.get_encoder())
        parts["encoder_scores"] = _scores(flops[f"{type(model).__name__}.{encoder}"])
        parts["attention_scores"] = parts["cross_scores"] = (scores - parts["encoder_scores"]) // 2
        beyond_body = head
    else:
        parts["attention_scores"] -= round(scores * _share_beyond_windows(model, config))
        beyond_body = total - sum(_flops(model.base_model, length)["Global"].values())
        if beyond_body > head:
            parts["head_transform"] = beyond_body - head
    parts["layers"] = total - scores - beyond_body

    held = {id(weight): weight for weight in model.parameters() if weight.requires_grad}
    tables = _of(held, (module for module in model.modules() if isinstance(module, nn.Embedding)))
    unused = _of(held, (module for name, module in model.named_modules() if name.endswith(".experts")))
    unused -= experts // (6 * length)
    n_params = sum(weight.numel() for weight in held.values())
    if config.predicts == "seq2seq":  # each stack has its own tokens, so FLOPs do not tell
        is_tied = any(
            module is not table and getattr(module, "weight", None) is table.weight for module in model.modules()
        )
        matrices = sum(weight.numel() for weight in held.values() if weight.ndim > 1)
        n_params_matmul = matrices - tables + (table.weight.numel() if is_tied else 0) - unused
    else:
        n_params_matmul = round((total - scores) / (6 * length))
    return ModelSize(
        n_params=n_params,
        n_params_active=n_params - unused,
        n_params_embedding=tables,
        n_params_matmul=n_params_matmul,
        n_params_head=n_params
        - sum(weight.numel() for weight in model.base_model.parameters() if weight.requires_grad),
        parts={name: whole(each / positions) for name, each in parts.items()},
    )


def _share_beyond_windows(model: Any, config: HFConfig) -> float:
    """Return which part of attention's scores lies outside of the layers' windows. Raises UserError."""
    from torch import nn

    length, spans = config.context, attention_spans(config, model.config)
    if all(span == length for span in spans):
        return 0.0
    stacks = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == len(spans)
    ]
    if not stacks:
        raise UserError(f"{config.name} has windows of attention, and the layers that have them are not found")
    flops = _flops(model, length, backward=False)  # a backward pass is not told by module everywhere
    paths = [f"{type(model).__name__}.{stacks[0]}.{layer}" for layer in range(len(spans))]
    scores = [_scores(flops[path]) - _experts(flops, path) for path in paths]
    seen = sum(each * span for each, span in zip(scores, spans, strict=True))
    return 1 - seen / (sum(scores) * length)


def _of(held: dict[int, Any], modules: Iterable["nn.Module"]) -> int:
    """Return how many of the parameters held are in some modules, each counted once."""
    theirs = {id(weight) for module in modules for weight in module.parameters()}
    return sum(weight.numel() for key, weight in held.items() if key in theirs)


def _flops(model: Any, length: int, backward: bool = True) -> dict[str, dict[Any, int]]:
    """Return the FLOPs of one sequence, or of a source and a target, both ways or forward, by module and operation."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    class Yes(TorchDispatchMode):
        """Answers where the library asks for a value, which meta tensors do not have: is every token valid? It is."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._local_scalar_dense.default:
                return True if args[0].dtype == torch.bool else 1
            return func(*args, **(kwargs or {}))

    tokens = torch.zeros(1, length, dtype=torch.int64, device="meta")
    given = {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {}
    if first_position(model) is not None:
        given["position_ids"] = tokens
    with FlopCounterMode(display=False) as counter, Yes():
        result = model(input_ids=tokens, use_cache=False, **given)[0].sum()
        if backward:
            result.backward()
    return {path: dict(operations) for path, operations in counter.get_flop_counts().items()}


def _experts(flops: dict[str, dict[Any, int]], within: str) -> int:
    """Return the FLOPs of all experts in a module."""
    paths = [path for path in flops if path.startswith(f"{within}.") and path.endswith(".experts")]
    return sum(_scores(flops[path]) for path in paths)


def _scores(operations: dict[Any, int]) -> int:
    """Return the FLOPs of products of two activations: torch's fused attention, or batches of matrices."""
    return sum(flops for name, flops in operations.items() if re.search("bmm|attention", str(name)))


def fingerprint(config: HFConfig) -> str:
    """Return what pretrained weights are known by: the hub's commit; of a folder, a SHA-256 over content.

    That is over its safetensors and config.json, and over the code that comes with it where that may run.
    Raises UserError when the model is unknown, has no safetensors, or the hub cannot be reached.
    """
    folder = folder_of(config)
    if folder is None:
        return commit_of("model", config.pretrained or "", config.revision, "model", "give model.pretrained a folder")
    return folder_fingerprint(folder, sorted(folder.glob("*.py")) if config.trust_remote_code else [])


def folder_fingerprint(folder: Path, code: list[Path] | None = None) -> str:
    """Return the SHA-256 over a folder's safetensors, its config.json, and `code`. Raises UserError."""
    weights = visible_files(folder, "*.safetensors")
    if not weights:
        raise lacking_weights(str(folder), [file.name for file in folder.iterdir()])
    return hash_files([*weights, folder / "config.json", *(code or [])])
