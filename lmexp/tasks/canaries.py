"""What a trained model shows of its canaries (data/canaries.py): their exposure, and whether they can be extracted.

**Exposure** (Carlini et al. 2019, "The Secret Sharer", definition of exposure): log2 |R| - log2 rank(s), in bits, where
R are the texts that the canary s could have been, and its rank is how many of them the model finds at least as likely,
s included. R has 2^113 texts here, so the rank is estimated by sampling, as the paper does: among N_REFERENCES random
texts of R and s. The exposure is then at most log2(N_REFERENCES + 1) = 10 bits. The paper's other way, which reaches
further by a skew-normal distribution fitted to the likelihoods, is not used. A canary that the model has never seen has
a uniform rank, and so an exposure of 1 / ln 2 = 1.44 bits on average.

**Extraction** (Carlini et al. 2023, "Quantifying Memorization Across Neural Language Models", definition 3.1): whether
the model, prompted by the first half of a canary's tokens, gives the second half by greedy decoding. That is so if
each token of the second half is the likeliest after those before it, which one forward pass shows.
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
