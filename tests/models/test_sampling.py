"""Drawing tokens: what is cut off, and what stays as likely as it was."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lmexp.models.build import build_model
from lmexp.models.sampling import nucleus, sample
from tests.models.test_gpt import tiny

WEIGHTS = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30).filter(lambda w: sum(w) > 1e-3)
CONTEXT = 16


def probabilities(weights: list[float]) -> torch.Tensor:
    return torch.tensor(weights, dtype=torch.float64) / sum(weights)


@given(WEIGHTS, st.floats(1e-3, 0.999))
def test_a_nucleus_is_the_fewest_of_the_likeliest_that_reach_p(weights: list[float], p: float):
    before = probabilities(weights)
    kept = nucleus(before, p)
    inside = kept > 0
    assert inside.any() and torch.equal(kept[inside], before[inside])
    assert before[inside].min() >= before[~inside].max() if (~inside).any() else True
    reached = float(kept.sum())
    assert reached >= p - 1e-9
    assert reached - float(before[inside].min()) < p  # without the least likely of them it is not reached


@given(WEIGHTS)
def test_all_of_the_probability_is_every_token(weights: list[float]):
    assert torch.equal(nucleus(probabilities(weights), 1.0), probabilities(weights))


def test_a_nucleus_of_next_to_nothing_is_the_likeliest_token_as_is_no_temperature():
    model = build_model(tiny(), 0).eval()
    greedy = list(sample(model, [1, 2], 10, CONTEXT, temperature=0))
    assert list(sample(model, [1, 2], 10, CONTEXT, temperature=1.5, top_p=1e-6, seed=3)) == greedy
    assert list(sample(model, [1, 2], 10, CONTEXT, temperature=1.5, top_k=1, seed=3)) == greedy
    assert list(sample(model, [1, 2], 10, CONTEXT, temperature=1.5, seed=3)) != greedy


def test_next_to_no_temperature_is_none():
    model = build_model(tiny(), 0).eval()
    greedy = list(sample(model, [1, 2], 10, CONTEXT, temperature=0))
    assert list(sample(model, [1, 2], 10, CONTEXT, temperature=1e-300, top_k=5)) == greedy


def test_only_tokens_of_the_nucleus_are_drawn():
    model = build_model(tiny(), 0).eval()
    likely = nucleus(model(torch.tensor([[1, 2]]))[0, -1].softmax(-1).detach(), 0.5)
    drawn = {next(iter(sample(model, [1, 2], 1, CONTEXT, top_p=0.5, seed=seed))) for seed in range(300)}
    assert drawn <= set(likely.nonzero().flatten().tolist()) and len(drawn) > 1


class Elsewhere(torch.nn.Module):
    """A model on another device, which says where it got its tokens, and answers on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(1, device="meta"))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        assert tokens.device.type == "meta"
        return torch.arange(5.0).expand(1, tokens.shape[1], 5)


def test_tokens_are_read_where_the_model_is_and_drawn_on_the_cpu():
    assert len(list(sample(Elsewhere(), [1, 2], 3, context=8, temperature=0))) == 3
