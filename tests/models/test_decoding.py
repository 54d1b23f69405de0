"""Decoding: greedy is what it says, and a search wide enough finds what trying everything finds."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.models.decoding import decode
from lmexp.models.encdec import EncDec
from tests.models.test_encdec import SOURCES, TARGETS, model_of, tiny

EOS = 0
VOCAB = 4


def small(seed: int) -> EncDec:
    """A model of four tokens, with weights so large that what comes next hangs on all that came before."""
    model = model_of(tiny(vocab_size=VOCAB), seed)
    with torch.no_grad():
        for layer in model.decoder:
            for weight in layer.parameters():
                weight.mul_(2.0)
    return model


def sources_of(batch: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sources, which of their positions are no padding, and what starts each target."""
    dice = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, SOURCES + 1, (batch, 1), generator=dice)
    tokens = torch.randint(19, (batch, SOURCES), generator=dice)
    return tokens, torch.arange(SOURCES) < lengths, torch.full((batch,), EOS)


def log_p(model: EncDec, source: torch.Tensor, valid: torch.Tensor, target: tuple[int, ...]) -> float:
    """The log-probability of a target, read as a whole."""
    inputs = torch.tensor([[EOS, *target[:-1]]])
    with torch.no_grad():
        scores = model(source[None], valid[None], inputs)[0].log_softmax(-1)
    return float(scores[torch.arange(len(target)), list(target)].sum())


def best_of_all(model: EncDec, source: torch.Tensor, valid: torch.Tensor, limit: int, alpha: float) -> list[int]:
    """The best of all targets of up to `limit` tokens, by trying each."""
    tried = {}
    for length in range(1, limit + 1):
        for target in itertools.product(range(VOCAB), repeat=length):
            ends = target[-1] == EOS or length == limit
            if ends and EOS not in target[:-1]:
                tried[target] = log_p(model, source, valid, target) / ((5 + length) / 6) ** alpha
    best = max(tried, key=tried.__getitem__)
    return list(best[:-1] if best[-1] == EOS else best)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_search_with_enough_beams_finds_the_best_of_all_targets(seed: int, alpha: float):
    model, (sources, valid, start), limit = small(seed), sources_of(3), 4
    found = decode(model, sources, valid, start, EOS, limit, beams=VOCAB**limit, length_penalty=alpha)
    expected = [best_of_all(model, source, mask, limit, alpha) for source, mask in zip(sources, valid, strict=True)]
    assert found == expected


def test_the_length_penalty_changes_what_is_found():
    """In models of random weights, the ends of many sentences are about as likely as further tokens."""
    lengths = {0.0: 0, 2.0: 0}
    for seed in range(6):
        model, (sources, valid, start) = small(seed), sources_of(8)
        for alpha in lengths:
            lengths[alpha] += sum(map(len, decode(model, sources, valid, start, EOS, 4, 64, alpha)))
    assert lengths[0.0] < lengths[2.0], lengths


def greedy(model: EncDec, source: torch.Tensor, valid: torch.Tensor, limit: int) -> list[int]:
    """The likeliest token at each step, by reading everything again."""
    target: list[int] = []
    with torch.no_grad():
        while len(target) < limit:
            token = int(model(source[None], valid[None], torch.tensor([[EOS, *target]]))[0, -1].argmax())
            if token == EOS:
                break
            target.append(token)
    return target


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 50), batch=st.integers(1, 4), limit=st.integers(1, TARGETS), alpha=st.sampled_from([0.0, 1.0])
)
def test_one_beam_is_greedy(seed: int, batch: int, limit: int, alpha: float):
    model, (sources, valid, start) = small(seed), sources_of(batch, seed)
    expected = [greedy(model, source, mask, limit) for source, mask in zip(sources, valid, strict=True)]
    assert decode(model, sources, valid, start, EOS, limit, 1, alpha) == expected


def searched(
    model: EncDec, source: torch.Tensor, valid: torch.Tensor, limit: int, beams: int, alpha: float
) -> list[int]:
    """Beam search as it is told: on lists, without an early end, reading everything again at every step."""
    is_open: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    ended: list[tuple[float, tuple[int, ...]]] = []
    for length in range(1, limit + 1):
        longer = [(*target, token) for _, target in is_open for token in range(VOCAB)]
        kept = sorted(((log_p(model, source, valid, target), target) for target in longer), reverse=True)[:beams]
        is_open = [(score, target) for score, target in kept if target[-1] != EOS and length < limit]
        ended += [
            (score / ((5 + length) / 6) ** alpha, target) for score, target in kept if (score, target) not in is_open
        ]
    best = max(ended)[1]
    return list(best[:-1] if best[-1] == EOS else best)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 200),
    beams=st.integers(2, 4),
    limit=st.integers(2, TARGETS),
    alpha=st.sampled_from([0.0, 0.6, 2.0]),
)
def test_a_search_is_the_one_that_reads_everything_again(seed: int, beams: int, limit: int, alpha: float):
    model, (sources, valid, start) = small(seed), sources_of(1, seed)
    expected = searched(model, sources[0], valid[0], limit, beams, alpha)
    assert decode(model, sources, valid, start, EOS, limit, beams, alpha) == [expected]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 50), beams=st.integers(1, 5), limit=st.integers(1, TARGETS))
def test_a_batch_finds_what_each_source_finds_alone(seed: int, beams: int, limit: int):
    model, (sources, valid, start) = small(seed), sources_of(4, seed)
    together = decode(model, sources, valid, start, EOS, limit, beams)
    alone = [
        decode(model, *(part[i : i + 1] for part in (sources, valid, start)), EOS, limit, beams)[0] for i in range(4)
    ]
    assert together == alone


class Scripted:
    """A model with the same scores for the next token whatever came before, or by the step."""

    def __init__(self, *steps: list[float]) -> None:
        self.steps = steps
        self.calls = 0

    def new_state(self, sources: torch.Tensor, source_valid: torch.Tensor | None, capacity: int) -> "Scripted":
        self.capacity = capacity
        return self

    def select(self, rows: torch.Tensor) -> None:
        pass

    def next_logits(self, inputs: torch.Tensor, state: object) -> torch.Tensor:
        scores = self.steps[min(self.calls, len(self.steps) - 1)]
        self.calls += 1
        return torch.tensor(scores).log().expand(len(inputs), -1)


def written(model: Scripted, limit: int, beams: int, alpha: float = 0.6, batch: int = 1) -> list[list[int]]:
    start = torch.zeros(batch, dtype=torch.int64)
    return decode(model, start[:, None], None, start, EOS, limit, beams, alpha)


def test_a_search_keeps_what_greedy_throws_away():
    # Token 1 looks best at first, but whatever follows it is unlikely; 2 then ends for certain.
    class Garden(Scripted):
        def next_logits(self, inputs: torch.Tensor, state: object) -> torch.Tensor:
            after = {0: [0.0, 0.6, 0.4], 1: [0.3, 0.35, 0.35], 2: [1.0, 0.0, 0.0]}
            return torch.tensor([after[int(token)] for token in inputs[:, -1]]).log()

    assert written(Garden(), 3, beams=1)[0][0] == 1
    assert written(Garden(), 3, beams=2) == [[2]]


def test_lengths_are_compared_by_the_papers_penalty():
    # Ending at once has log P = ln 0.5; going on once, then ending for certain, has ln 0.4.
    better_from = math.log(math.log(0.4) / math.log(0.5)) / math.log(7 / 6)  # ln 0.4 / (7/6)^alpha = ln 0.5
    for alpha, expected in ((better_from - 0.01, []), (better_from + 0.01, [1])):
        model = Scripted([0.5, 0.4, 0.1], [1.0, 0.0, 0.0])
        assert written(model, 2, 3, alpha) == [expected]


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_of_equally_good_targets_the_shorter_and_then_the_smaller_tokens_win(beams: int):
    assert written(Scripted([0.0, 0.25, 0.25, 0.25, 0.25]), 3, beams) == [[1, 1, 1]]
    assert written(Scripted([0.5, 0.5, 0.0], [1.0, 0.0, 0.0]), 3, beams, alpha=0.0) == [[]]


def test_a_target_ends_with_its_end_token_or_at_the_limit():
    ends = Scripted([0.1, 0.9, 0.0], [0.1, 0.9, 0.0], [0.9, 0.1, 0.0])
    assert written(ends, 9, beams=1) == [[1, 1]] and ends.calls == 3
    assert ends.capacity == 9
    never = Scripted([0.1, 0.9, 0.0])
    assert written(never, 4, beams=1) == [[1, 1, 1, 1]] and never.calls == 4


def test_a_search_stops_when_nothing_open_can_win_any_more():
    # After the first step the best has log P = ln 0.9; what is open, at most ln 0.05 over ((5 + 50) / 6)^0.6.
    model = Scripted([0.9, 0.05, 0.05])
    assert written(model, 50, beams=2) == [[]] and model.calls < 50
    assert math.log(0.9) > math.log(0.05) / (55 / 6) ** 0.6
    assert model.calls == 1


def test_a_batch_goes_on_until_every_source_has_its_target():
    class Two(Scripted):
        def next_logits(self, inputs: torch.Tensor, state: object) -> torch.Tensor:
            self.calls += 1
            second = [0.1, 0.9] if self.calls < 3 else [0.9, 0.1]
            return torch.tensor([[0.9, 0.1], second]).log()

    assert written(Two(), 8, beams=1, batch=2) == [[], [1, 1]]


def test_a_longer_target_that_is_as_good_changes_nothing_in_a_batch_either():
    class Two(Scripted):
        def next_logits(self, inputs: torch.Tensor, state: object) -> torch.Tensor:
            self.calls += 1
            first = [0.5, 0.5] if self.calls == 1 else [1.0, 0.0]  # ends at once, or after one token: as likely
            second = [0.1, 0.9] if self.calls < 3 else [0.9, 0.1]  # keeps the search going
            return torch.tensor([first, first, second, second]).log()

    assert written(Two(), 8, beams=2, alpha=0.0, batch=2) == [[], [1, 1]]


def test_a_model_whose_scores_are_no_numbers_writes_nothing():
    assert written(Scripted([math.nan, math.nan]), 3, beams=2) == [[]]
