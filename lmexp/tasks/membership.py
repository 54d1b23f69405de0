"""Membership attacks: they guess from a model's probabilities whether it was trained on a text.

Each attack gives a text a number that is larger for a member. Numbers of members and of others are compared by

    auc   the area under the ROC curve: the probability that a random member has a larger number than a random other
          text, ties counted half. Random guesses give 0.5.
    tpr   the share of members above a threshold that at most 1 % of the others exceed (Carlini et al. 2022,
          "Membership Inference Attacks From First Principles"). Random guesses give 0.01.

Both have a 95 % interval: percentiles of a bootstrap that resamples members and others separately.

The attacks, for a text x of n tokens:

    loss       log p(x) / n (Yeom et al. 2018)
    min_k      Min-K%++ (Zhang et al. 2024, "Min-K%++: Improved Baseline for Detecting Pre-Training Data"): the mean of
               the lowest 20 % of (log p(x_t | x_<t) - mean) / deviation, where mean and standard deviation are those of
               log p(. | x_<t) under the model's own distribution of the next token
    zlib       log p(x) divided by the bytes of the text as zlib compresses it (Carlini et al. 2021, "Extracting
               Training Data from Large Language Models")
    reference  the difference of loss to another model, which has not seen the members (the same paper)
"""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from lmexp.data.membership import Texts
from lmexp.data.tokenizers.base import Tokenizer
from lmexp.tasks.base import Task, TaskScores
from lmexp.tasks.token_scores import TokenScores, token_scores

K = 0.2
"""Share of a text's tokens that Min-K%++ looks at."""
MAX_FALSE = 0.01
"""Share of the others that may be taken for members."""
RESAMPLES = 1000
LEVEL = 0.95
"""The confidence of intervals."""


def score_membership(task: Task, texts: Texts, tokenizer: Tokenizer, reference: Task | None = None) -> TaskScores:
    """Return `auc_<attack>` and `tpr_<attack>` of each attack; the details have their intervals.

    Args:
        task: one that `predicts_next`.
        texts: at most as long as the context of the task's model, and of the reference's.
        tokenizer: that of both models.
        reference: a task with the model to compare with; None leaves that attack out.
    """
    members, others = (_attacks(task, reference, tokenizer, each) for each in (list(texts.members), list(texts.others)))
    scores: dict[str, float] = {}
    intervals: dict[str, list[float]] = {}
    for attack, of_members in members.items():
        measured = compare(of_members, others[attack])
        scores |= {f"{name}_{attack}": value for name, (value, _) in measured.items()}
        intervals |= {f"{name}_{attack}": list(interval) for name, (_, interval) in measured.items()}
    count, length = texts.members.shape
    return TaskScores(scores, {"texts_of_each_kind": count, "tokens": length, "intervals": intervals})


def _attacks(
    task: Task, reference: Task | None, tokenizer: Tokenizer, texts: Sequence[np.ndarray]
) -> Mapping[str, np.ndarray]:
    """Return for each attack a number for each text, larger for members: (texts,)."""
    scored = token_scores(task, texts, tokenizer.bos_id)
    loss = np.array([scores.log_probability.mean() for scores in scored])
    attacks = {
        "loss": loss,
        "min_k": np.array([min_k(scores) for scores in scored]),
        "zlib": np.array([zlib_ratio(s, tokenizer.decode(t.tolist())) for s, t in zip(scored, texts, strict=True)]),
    }
    if reference is not None:
        others = token_scores(reference, texts, tokenizer.bos_id)
        attacks["reference"] = loss - np.array([scores.log_probability.mean() for scores in others])
    return attacks


def min_k(scores: TokenScores) -> float:
    """Return Min-K%++ of a text."""
    count = max(1, int(K * len(scores.standardised)))
    return float(np.sort(scores.standardised)[:count].mean())


def zlib_ratio(scores: TokenScores, text: str) -> float:
    """Return the log-probability of a text for each byte of its compressed form."""
    return float(scores.log_probability.sum() / len(zlib.compress(text.encode())))


def compare(members: np.ndarray, others: np.ndarray) -> dict[str, tuple[float, tuple[float, float]]]:
    """Return `auc` and `tpr` of numbers that should be larger for members, each with its interval: (n,), (m,)."""
    dice = np.random.Generator(np.random.PCG64(0))
    again = [(dice.choice(members, len(members)), dice.choice(others, len(others))) for _ in range(RESAMPLES)]
    tail = (1 - LEVEL) / 2
    measured = {}
    for name, measure in (("auc", auc), ("tpr", true_positive_rate)):
        low, high = np.quantile([measure(*sample) for sample in again], [tail, 1 - tail])
        measured[name] = measure(members, others), (float(low), float(high))
    return measured


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """Return the probability that a member has a larger number than another text, ties counted half."""
    in_order = np.sort(others)
    below, up_to = (np.searchsorted(in_order, members, side=side) for side in ("left", "right"))
    return float((below + up_to).sum() / (2 * len(members) * len(others)))


def true_positive_rate(members: np.ndarray, others: np.ndarray) -> float:
    """Return the largest share of members above a threshold that at most 1 % of the others reach."""
    allowed = int(MAX_FALSE * len(others))
    threshold = np.sort(others)[len(others) - 1 - allowed]  # what is above it is taken for a member
    return float((members > threshold).mean())
