"""What a causal model says of each token of given texts: its probability, and whether it was the likeliest."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from lmexp.config.checks import micro_batch
from lmexp.config.pieces import rows_at_a_time
from lmexp.tasks.base import Task


@dataclass(frozen=True)
class TokenScores:
    """The scores of the tokens of one text, each given those before it: (n,) each."""

    log_probability: np.ndarray
    """In nats, float64."""
    is_likeliest: np.ndarray
    """Whether no other token is likelier, so that greedy decoding gives it: bool."""
    standardised: np.ndarray
    """The log-probability less its mean and divided by its standard deviation, if the token were drawn from the model's
    own distribution (Zhang et al. 2024, Min-K%++); 0 where all tokens are equally likely: float64."""


def token_scores(task: Task, texts: Sequence[np.ndarray], bos_id: int) -> list[TokenScores]:
    """Score every token of each text, as a document of its own; nothing is padded.

    The model computes in what it was trained in, and is left in the mode that it was in.

    Args:
        task: one that `predicts_next`.
        texts: the tokens of each, (n,), without the one that begins a document; at most as many as the context.
        bos_id: the token that begins a document.
    """
    by_length: dict[int, list[int]] = {}
    for number, text in enumerate(texts):
        by_length.setdefault(len(text), []).append(number)
    scored: dict[int, TokenScores] = {}
    config = task.config
    assert config.model.vocab_size is not None, "the vocabulary is resolved before a model is built"
    # As many positions as a micro-batch has, or fewer if their logits are large: several copies are held.
    rows = micro_batch(config) * config.model.context
    rows = min(rows, rows_at_a_time(config.model.vocab_size, task.device.type))
    compiled = task.compiled_for is not None  # the graphs are for batches of another shape
    with task.at_rest(), torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        for length, numbers in by_length.items():
            at_once = max(1, rows // max(length, 1))
            for first in range(0, len(numbers), at_once):
                part = numbers[first : first + at_once]
                scored |= zip(part, _batch_scores(task, [texts[number] for number in part], bos_id), strict=True)
    return [scored[number] for number in range(len(texts))]


def _batch_scores(task: Task, texts: list[np.ndarray], bos_id: int) -> list[TokenScores]:
    """Score texts of one length."""
    targets = torch.from_numpy(np.stack(texts).astype(np.int64)).to(task.device)  # (B, T)
    inputs = torch.cat([torch.full_like(targets[:, :1], bos_id), targets[:, :-1]], dim=1)
    with task.as_trained():
        logits, _ = task.predict({"inputs": inputs, "targets": targets})  # (B * T, V)
    logits = logits.float()
    every = logits.log_softmax(-1)
    log_p = every.gather(-1, targets.flatten()[:, None])[:, 0]
    is_likeliest = logits.argmax(-1) == targets.flatten()
    shares = every.exp()
    mean = (shares * every).nan_to_num().sum(-1)  # a share of 0 times minus infinity is 0
    deviation = (shares * (every - mean[:, None]).square()).nan_to_num().sum(-1).sqrt()
    standardised = torch.where(deviation > 0, (log_p - mean) / deviation, 0.0)
    columns = (log_p.double(), is_likeliest, standardised.double())
    return [TokenScores(*row) for row in zip(*(c.view(targets.shape).cpu().numpy() for c in columns), strict=True)]
