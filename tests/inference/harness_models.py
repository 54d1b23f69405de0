"""Models with random weights for the tests of lm-eval's tasks, and what they score as counted by hand."""

from typing import Any

import torch
from lm_eval.api.instance import Instance

from lmexp.data.tokenizers.base import Tokenizer
from lmexp.models.build import build_model
from lmexp.train.checkpoint import Loaded

CONTEXT = 32


def loaded_of(config: Any, tokenizer: Tokenizer, *words: str, scale: float = 4.0) -> Loaded:
    """A model with random weights, large ones, so that its choices are clear."""
    resolved = config(f"model.context={CONTEXT}", *words)
    shape = resolved.model.model_copy(update={"vocab_size": tokenizer.vocab_size})
    model = build_model(shape, 1, resolved.task).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.mul_(scale)
    return Loaded(resolved.model_copy(update={"model": shape}), model, tokenizer, tokenizer)


@torch.inference_mode()
def by_hand(loaded: Loaded, before: list[int], after: list[int]) -> tuple[float, bool]:
    """One forward pass a token: its probability after as many of those before it as fit."""
    total, greedy = 0.0, True
    for place, token in enumerate(after):
        scores = loaded.model(torch.tensor([(before + after[:place])[-CONTEXT:]]))[0, -1]
        total += float(scores.log_softmax(-1)[token])
        greedy &= int(scores.argmax()) == token
    return total, greedy


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, words, place) for place, words in enumerate(arguments)]


def windowed(loaded: Loaded, tokens: list[int], before: list[int] | None = None) -> float:
    """The log-probability of a text by lm-eval's own windows; `before`: what stands after the start, unscored."""
    total = 0.0
    first = [loaded.tokenizer.bos_id, *(before or [])]
    for place in range(0, len(tokens), CONTEXT):
        part = tokens[place : place + CONTEXT]
        inputs = (first + tokens[:place] + part[:-1])[-CONTEXT:]
        with torch.inference_mode():
            scores = loaded.model(torch.tensor([inputs]))[0].log_softmax(-1)
        total += sum(float(scores[len(inputs) - len(part) + i, token]) for i, token in enumerate(part))
    return total
