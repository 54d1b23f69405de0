"""Heads over labels as transformers has them: for each token, and for a text where the library's head can hold ours.

Our head is one matrix and a bias. The library's heads for tokens are the same. Its heads for texts are not:

- BERT's and RoBERTa's have a dense layer and a tanh before the matrix. The dense layer becomes a tiny multiple of the
  identity, where tanh(x) differs from x by no more than the rounding of float32, and the matrix is divided by it.
- GPT-2's has no bias. The values that come out of a LayerNorm, before its scale and bias, add up to zero. So a scale
  and a bias of 1, with the old ones moved into the matrix, leave room for a bias in the sum of each of its rows.

No head for texts of the Llama kind has a bias, and RMSNorm leaves no room for one. There the labels of a text are
exported as labels of tokens, and the reader of a model's output has to know which token's it is.
"""

import copy
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lmexp.config.hf import quiet
from lmexp.config.tasks.base import Pooling
from lmexp.errors import UserError
from lmexp.models.hf import HFModel
from lmexp.models.labels import LabelModel

TOKENS, TEXTS = "AutoModelForTokenClassification", "AutoModelForSequenceClassification"
TABLES = {
    TOKENS: "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    TEXTS: "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
}
"""The library's table of the architectures that each of its classes knows."""
TINY = 2.0**-14
"""Times a hidden state, which is about 1 to 20 large, this is small enough for tanh; float16 still has it."""
READ_OFF: dict[Pooling, str] = {
    "first": "the logits of its first token",
    "last": "the logits of its last token",
    "mean": "the mean of the logits of all its tokens",
}


def label_settings(labels: Sequence[str], pad: int) -> dict[str, Any]:
    """Return what a config.json says of labels, and of the id that pads, by which the end of a text is told."""
    return {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "pad_token_id": pad,
    }


def add_head(settings: dict[str, Any], weights: dict[str, Tensor], model: LabelModel) -> str:
    """Add the head of one of our models to the settings and weights of its body, and return the library's class.

    The settings must have the labels.
    """
    for auto in _classes(model.pooling):
        names = _names(auto, settings)
        head = head_weights(auto, names, weights, model.head)
        if head is not None:
            weights |= head
            settings["architectures"] = [_class_of(auto, settings["model_type"])]
            return auto
    raise UserError(f"transformers has no head over labels for {settings['model_type']}, so it cannot be exported")


@torch.no_grad()
def save_library_model(model: LabelModel, settings: dict[str, Any], folder: Path) -> str:
    """Write a model of the library with our head over labels, and return its class. Raises UserError if it has none.

    The head of every architecture that is not ours is tried out: its logits must be those of `model`.
    """
    body = model.body
    assert isinstance(body, HFModel)
    config = copy.deepcopy(body.model.config)
    for key, value in settings.items():
        setattr(config, key, {int(k): v for k, v in value.items()} if key == "id2label" else value)
    device = model.head.weight.device
    for auto in _classes(model.pooling):
        if not _class_of(auto, config.model_type):
            continue
        with quiet():
            import transformers

            theirs = getattr(transformers, auto).from_config(config, dtype=torch.float32).to(device).eval()
        theirs.base_model.load_state_dict(body.model.state_dict(), strict=False)
        weights = theirs.state_dict()
        head = head_weights(auto, set(weights), weights, model.head)
        if head is None:
            continue
        theirs.load_state_dict(weights | head)
        if _agree(theirs, model, auto):
            with quiet():
                theirs.save_pretrained(folder)
            return auto
    raise UserError(
        f"transformers' {config.model_type} has no head over labels that is one matrix and a bias, "
        "so it cannot be exported"
    )


def how_to_read(auto: str, pooling: Pooling | None) -> str | None:
    """Return what the reader of a text's labels must know of an exported model; None if there is nothing."""
    if pooling is None or auto == TEXTS:
        return None
    return f"it is for {auto}, since no head over texts fits: read a text's label from {READ_OFF[pooling]}"


def head_weights(
    auto: str, names: Set[str], weights: Mapping[str, Tensor], head: nn.Linear
) -> dict[str, Tensor] | None:
    """Return the weights of a library model's head that scores as ours does; None if it cannot.

    Args:
        names: the names of all its weights.
        weights: those of its body.
    """
    matrix, bias = head.weight.detach(), head.bias.detach()
    if auto == TOKENS:
        place = next((place for place in ("classifier", "score") if f"{place}.bias" in names), None)
        return None if place is None else {f"{place}.weight": matrix, f"{place}.bias": bias}
    for dense, out in (("pooler.dense", "classifier"), ("classifier.dense", "classifier.out_proj")):
        place = next((name.removesuffix(".weight") for name in names if name.endswith(f"{dense}.weight")), None)
        if place is not None and f"{out}.bias" in names:
            identity = torch.eye(head.in_features, dtype=matrix.dtype, device=matrix.device)
            shift = torch.zeros_like(identity[0])
            dense_weights = {f"{place}.weight": TINY * identity, f"{place}.bias": shift}
            return dense_weights | {f"{out}.weight": matrix / TINY, f"{out}.bias": bias}
    norm = next((name.removesuffix(".weight") for name in weights if name.endswith(".ln_f.weight")), None)
    if norm is None or "score.weight" not in names:
        return None
    scale, shift = weights[f"{norm}.weight"].double(), weights[f"{norm}.bias"].double()
    scaled = matrix.double() * scale  # (labels, C)
    constant = matrix.double() @ shift + bias.double()  # (labels,)
    row = (constant - scaled.sum(1)) / head.in_features
    ones = torch.ones_like(weights[f"{norm}.weight"])
    return {
        "score.weight": (scaled + row[:, None]).to(matrix.dtype),
        f"{norm}.weight": ones,
        f"{norm}.bias": ones.clone(),
    }


def _classes(pooling: Pooling | None) -> list[str]:
    """Return the library's classes that may have the head, the best first."""
    return [TOKENS] if pooling in (None, "mean") else [TEXTS, TOKENS]


def _class_of(auto: str, model_type: str) -> str | None:
    from transformers.models.auto import modeling_auto

    name: str | None = getattr(modeling_auto, TABLES[auto]).get(model_type)
    return name


def _names(auto: str, settings: Mapping[str, Any]) -> Set[str]:
    """Return the names of all weights of a library's model."""
    if not _class_of(auto, settings["model_type"]):
        return set()
    with quiet(), torch.device("meta"):
        import transformers

        config = transformers.AutoConfig.for_model(**settings)
        return set(getattr(transformers, auto).from_config(config).state_dict())


def _agree(theirs: Any, model: LabelModel, auto: str) -> bool:
    """Return whether two models give some tokens the same scores."""
    pad, length = theirs.config.pad_token_id, min(8, model.body.config.context)
    tokens = torch.randint(model.body.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
    tokens[tokens == pad] = 0 if pad else 1
    tokens = tokens.to(model.head.weight.device)
    logits = theirs(input_ids=tokens).logits
    if model.pooling is not None and auto == TOKENS:
        logits = {"first": logits[:, 0], "last": logits[:, -1], "mean": logits.mean(1)}[model.pooling]
    return torch.allclose(logits, model(tokens), rtol=1e-3, atol=1e-4)
