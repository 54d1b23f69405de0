"""Asks about numbers of a table that are probably not in the units of the laws: parameters, tokens, FLOPs, nats.

One column alone often looks right: GPT-2's sizes in millions are 124 to 1558, and a hundred billion tokens are 100. So
the columns are looked at together: C over N D, tokens per parameter, the loss against the compute that paid for it, and
against ln of a vocabulary. What looks wrong is an error that asks. `--scale` answers it: with the factor, or with 1 if
the numbers are right as they are.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmexp.analysis.arrays import Floats
from lmexp.errors import UserError

MIN_NUMBERS = {"params": 100.0, "tokens": 100.0, "flops": 1e4}
"""Smaller numbers are probably in thousands, millions or billions."""
PLAUSIBLE_FLOPS = (0.5, 100.0)
"""Plausible FLOPs per parameter and token: about 2 forward and 4 backward, less for embeddings, more for attention."""
ROW_RATIOS = (1e-4, 1e6)
"""Plausible tokens per parameter of one run."""
USUAL_RATIOS = (1e-3, 1e5)
"""Plausible median of tokens per parameter. Published studies lie between 0.1 and 20,000."""
TINY_MODEL, TINY_TEXT = 1e4, 1e6
"""If no model has more parameters and none saw more tokens, they are hardly plain numbers."""
TINY_COMPUTE, EARLY_LOSS = 1e10, 2.4
"""So few FLOPs do not reach so low a loss, in nats: counts of pairs of characters give 2.45 on English."""
MAX_LOSS = 20.0
"""A loss above this is hardly in nats per token: a uniform guess among 200,000 tokens has 12.2."""
LARGE_COMPUTE, LATE_LOSS = 1e18, 7.0
"""A run of so many FLOPs has a loss below this; a perplexity may be above."""
MIN_FOR_TREND = 5
RISING = 0.5
"""A rank correlation of loss and compute above this means that higher is better."""


@dataclass(frozen=True)
class Question:
    """What looks wrong, and which quantities would have to be in another unit."""

    said: str
    quantities: tuple[str, ...]
    row: int | None = None
    """The row that shows it; None if all of them do."""


def ask(
    columns: Mapping[str, Floats],
    vocab_size: Floats | None,
    confirmed: Collection[str],
    source: str,
    lines: npt.NDArray[np.int64],
) -> None:
    """Raise UserError with the first question about the columns: params, tokens, flops and loss, (n,) each.

    Parameters and tokens are NaN where only compute is known.

    `vocab_size` (n,) is the vocabulary of each run, if the table has it. A quantity in `confirmed` is not questioned.
    """
    for question in doubts(columns, vocab_size):
        if set(question.quantities) <= set(confirmed):
            continue
        place = source if question.row is None else f"{source}, line {lines[question.row]}"
        raise UserError(f"{place}: {question.said} {_how(question.quantities)}")


def doubts(columns: Mapping[str, Floats], vocab_size: Floats | None = None) -> list[Question]:
    """Return all questions about the columns, which are those of `ask`."""
    about_sizes = [] if np.isnan(columns["params"]).all() else _about_sizes(columns)
    return [*about_sizes, *_about_losses(columns, vocab_size)]


def _about_sizes(columns: Mapping[str, Floats]) -> list[Question]:
    """Return the questions about parameters, tokens and FLOPs."""
    n, d, c, loss = (columns[name] for name in ("params", "tokens", "flops", "loss"))
    questions = []
    for name, least in MIN_NUMBERS.items():
        if (small := _outside(columns[name], (least, np.inf))) is not None:
            said = f"{name} is {columns[name][small]:g}; is it in millions or billions?"
            questions.append(Question(said, (name,), small))
    factor, ratio = c / (n * d), d / n
    if (row := _outside(factor, PLAUSIBLE_FLOPS)) is not None:
        questions.append(
            Question(
                f"FLOPs are {factor[row]:.3g} N D, and should be about 6 N D: do units differ between the columns? "
                "--compute 6ND computes them.",
                ("params", "tokens", "flops"),
                row,
            )
        )
    wrong = _outside(ratio, ROW_RATIOS)
    if wrong is not None or _outside(np.array([np.median(ratio)]), USUAL_RATIOS) is not None:
        shown = ratio[wrong] if wrong is not None else np.median(ratio)
        said = f"{shown:.3g} tokens per parameter; is one of them in millions or billions, the other not?"
        questions.append(Question(said, ("params", "tokens"), wrong))
    few = n.max() < TINY_MODEL and d.max() < TINY_TEXT
    if few or (c.max() < TINY_COMPUTE and loss.min() < EARLY_LOSS):
        said = (
            f"the largest model has {n.max():g} parameters, the longest run {d.max():g} tokens, and the lowest loss is "
            f"{loss.min():g}, which {c.max():.3g} FLOPs hardly reach; is it in millions or billions?"
        )
        questions.append(Question(said, ("params", "tokens")))
    return questions


def _about_losses(columns: Mapping[str, Floats], vocab_size: Floats | None) -> list[Question]:
    """Return the questions about the loss."""
    flops, loss = columns["flops"], columns["loss"]
    questions = []
    if len(loss) >= MIN_FOR_TREND and np.ptp(loss) > 0 and np.ptp(flops) > 0:
        from scipy.stats import spearmanr  # here, because few commands need it, and it takes half a second

        trend = float(spearmanr(flops, loss).statistic)
        if trend > RISING:
            said = "the losses rise with compute; is this an accuracy? A law needs a loss, where lower is better."
            questions.append(Question(said, ("loss",)))
    median, late = float(np.median(loss)), flops >= LARGE_COMPUTE
    if median > MAX_LOSS or (late.any() and np.median(loss[late]) > LATE_LOSS):
        said = f"losses of about {median:.3g} are hardly nats per token; are they perplexities? Take their logarithm."
        questions.append(Question(said, ("loss",)))
    elif vocab_size is not None and np.nanmedian(loss / np.log(vocab_size)) > 1.05:
        row = int(np.nanargmax(loss / np.log(vocab_size)))
        said = (
            f"a loss of {loss[row]:.3g} is above ln {vocab_size[row]:g} = {np.log(vocab_size[row]):.3g}, that of a "
            "uniform guess over the vocabulary, and so are most losses; are they perplexities, or in bits?"
        )
        questions.append(Question(said, ("loss",)))
    return questions


def _outside(values: Floats, bounds: tuple[float, float]) -> int | None:
    """Return the position of the first value (n,) outside the bounds; None if all lie inside."""
    wrong = np.flatnonzero((values < bounds[0]) | (values > bounds[1]))
    return int(wrong[0]) if len(wrong) else None


def _how(quantities: tuple[str, ...]) -> str:
    """Return how to answer a question about these quantities."""
    if quantities == ("loss",):
        return "If it is a loss in bits, --scale loss=0.6931 turns it into nats; --scale loss=1 takes it as it is."
    other = {"params": "params=1e6", "tokens": "tokens=1e9", "flops": "flops=1e18"}
    factors = ",".join(other[name] for name in quantities)
    ones = ",".join(f"{name}=1" for name in quantities)
    return f"Plain numbers are needed: --scale {factors} multiplies them, --scale {ones} takes them as they are."
