"""What a trained model has memorised of its canaries (data/canaries.py): their exposure and extraction.

**Exposure** (Carlini et al. 2019, "The Secret Sharer", definition of exposure): log2 |R| - log2 rank(s), in bits. R is
the set of all texts that the canary s could have been. The rank of s is the number of texts in R that are at least as
likely as s under the model, s included. R has 2^113 texts here. So the rank is estimated by sampling, as the paper
does: R is replaced by s and N_REFERENCES random texts, and the exposure is at most log2(N_REFERENCES + 1) = 10 bits.
The paper also fits a skew-normal distribution to the likelihoods, to go beyond that; this is not done here. A canary
that the model has never seen has a uniform rank, and so an exposure of 1 / ln 2 = 1.44 bits on average.

**Extraction** (Carlini et al. 2023, "Quantifying Memorization Across Neural Language Models", definition 3.1): given
the first half of a canary's tokens, greedy decoding gives the second half. One forward pass shows it: each token of
the second half must be the likeliest after the tokens before it.
"""

import math
from collections import defaultdict

import numpy as np

from lmexp.config.data import CanariesConfig
from lmexp.data.canaries import canaries_of, references_of
from lmexp.data.tokenizers.base import Tokenizer
from lmexp.tasks.base import Task, TaskScores
from lmexp.tasks.token_scores import TokenScores, token_scores


def score_canaries(task: Task, config: CanariesConfig, tokenizer: Tokenizer) -> TaskScores:
    """Return the mean exposure in bits, and the share of canaries extracted, for each number of repeats.

    The details have each canary, its rank, and how many references it was ranked among. Takes a forward pass over about
    25,000 tokens.
    """
    canaries, references = canaries_of(config), references_of(config)
    if not canaries:
        return TaskScores()
    texts = [canary.text for canary in canaries] + references
    scored = token_scores(task, tokenizer.encode_batch(texts), tokenizer.bos_id)
    likelihoods = np.array([each.log_probability.sum() for each in scored])
    of_references = likelihoods[len(canaries) :]
    exposures, extracted = defaultdict(list), defaultdict(list)
    rows = []
    for canary, score, likelihood in zip(canaries, scored, likelihoods, strict=False):
        rank = rank_of(likelihood, of_references)
        exposures[canary.repeats].append(exposure(rank, len(of_references) + 1))
        extracted[canary.repeats].append(is_extracted(score))
        rows.append(
            {
                "text": canary.text,
                "repeats": canary.repeats,
                "log2_probability": float(likelihood / math.log(2)),
                "rank": rank,
                "exposure": exposures[canary.repeats][-1],
                "extracted": extracted[canary.repeats][-1],
            }
        )
    means = {f"exposure_{repeats}": float(np.mean(each)) for repeats, each in exposures.items()}
    shares = {f"extracted_{repeats}": float(np.mean(each)) for repeats, each in extracted.items()}
    return TaskScores(means | shares, {"references": len(of_references), "canaries": rows})


def rank_of(likelihood: float, references: np.ndarray) -> int:
    """Return how many texts are at least as likely as a canary, itself included, from 1 on."""
    return 1 + int((references >= likelihood).sum())


def exposure(rank: int, candidates: int) -> float:
    """Return the exposure of a canary by its rank among so many candidates, itself included, in bits."""
    return math.log2(candidates) - math.log2(rank)


def is_extracted(scores: TokenScores) -> bool:
    """Whether greedy decoding gives the second half of a text after its first, the larger one if they are unequal."""
    known = math.ceil(len(scores.is_likeliest) / 2)
    return bool(scores.is_likeliest[known:].all())
