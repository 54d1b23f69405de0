"""Step Law, a published rule for the learning rate and the batch size (Li et al. 2025, arXiv 2503.04715).

The best peak rate is 1.79 N^-0.713 D^0.307 and the best batch 0.58 D^0.571
tokens, for N parameters without embeddings and D training tokens. N counts the matrices of the blocks alone: the
paper's smallest dense model has N = 214,663,680, which is 7 (4 960^2 + 3 960 9368) for its 7 layers of width 960 and
feed-forward width 9368. The rule was fitted on decoders of up to about a billion parameters, which AdamW
trained on 2 to 100 billion tokens with a cosine schedule.
"""


def step_law_rate(params: float, tokens: float) -> float:
    """Return Step Law's best peak learning rate for AdamW; `params` are those of the blocks' matrices."""
    return 1.79 * params**-0.713 * tokens**0.307


def step_law_batch(tokens: float) -> float:
    """Return Step Law's best batch, in tokens, for a run of so many tokens."""
    return 0.58 * tokens**0.571
