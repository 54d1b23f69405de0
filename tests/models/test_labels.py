"""Heads over labels: read off the right states, blind to padding, counted to the last FLOP."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lmexp.config.models.bert import BertConfig
from lmexp.config.models.gpt import GPTConfig
from lmexp.config.models.moe import MoEConfig
from lmexp.config.tasks.classify import ClassifyConfig
from lmexp.config.tasks.tag import TagConfig
from lmexp.cost.flops import count_model
from lmexp.models.base import LanguageModel
from lmexp.models.build import build_model
from lmexp.models.labels import LabelModel
from tests.models.test_bert import padded
from tests.models.test_bert import tiny as tiny_bert
from tests.models.test_gpt import tiny as tiny_gpt
from tests.models.test_moe import tiny as tiny_moe

BODIES = {"gpt": tiny_gpt(), "untied gpt": tiny_gpt(tie_embeddings=False), "bert": tiny_bert()}
POOLINGS = ("first", "last", "mean")
LENGTHS = [4, 1, 3]


def classify(pooling: str | None = None, labels: str = "abcde") -> ClassifyConfig:
    values = {"labels": list(labels), "pooling": pooling}
    return ClassifyConfig.model_validate({"_target_": "lmexp.tasks.classify.Classify", **values})


def tag(labels: str = "OBI") -> TagConfig:
    return TagConfig.model_validate({"_target_": "lmexp.tasks.tag.Tag", "labels": list(labels)})


def build(config: GPTConfig | BertConfig | MoEConfig, task: ClassifyConfig | TagConfig) -> LabelModel:
    model = build_model(config, 0, task)
    assert isinstance(model, LabelModel)
    with torch.no_grad():  # large enough for attention to look somewhere, and for a wrong mask to show
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return model.eval()


class Given(LanguageModel):
    """A body whose hidden states are known: at position t of row b, 10 b + t in every channel."""

    width = 3

    def __init__(self) -> None:
        super().__init__(GPTConfig(target="lmexp.models.gpt.GPT", name="t", n_layers=1, d_model=3, n_heads=1, context=4,
                                   vocab_size=5))  # fmt: skip

    def hidden(self, tokens: torch.Tensor, cache: object = None, valid: torch.Tensor | None = None) -> torch.Tensor:
        rows, positions = torch.arange(tokens.shape[0]), torch.arange(tokens.shape[1])
        return (10.0 * rows[:, None] + positions)[..., None].expand(-1, -1, 3)

    def drop_head(self) -> None:
        """There is none."""


# Of rows with 4, 1 and 3 valid positions out of 4.
STATES = {"first": [0.0, 10.0, 20.0], "last": [3.0, 10.0, 22.0], "mean": [1.5, 10.0, 21.0]}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_label_is_read_off_valid_positions_only(pooling: str):
    model = LabelModel(Given(), 2, pooling)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]))
        scores = model(torch.zeros(3, 4, dtype=torch.int64), padded(LENGTHS, 4))
    assert scores.tolist() == [[state, state] for state in STATES[pooling]]


@pytest.mark.parametrize(("pooling", "state"), [("first", 0.0), ("last", 3.0), ("mean", 1.5)])
def test_without_padding_all_positions_are_valid(pooling: str, state: float):
    model = LabelModel(Given(), 1, pooling)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
        assert model(torch.zeros(1, 4, dtype=torch.int64)).tolist() == [[state]]


def test_a_new_head_favours_no_label():
    head = LabelModel(Given(), 2000, "mean").head
    assert not head.bias.any()
    # The standard error of a standard deviation of n draws is 1 / sqrt(2 n); five of them.
    assert head.weight.std().item() == pytest.approx(0.02, rel=5 / (2 * head.weight.numel()) ** 0.5)


def test_what_training_asks_of_the_body_is_passed_on():
    model, tokens = build(tiny_moe(), classify()).train(), torch.arange(16)[None]
    assert list(model.layers()) == list(model.body.layers()) != []
    model(tokens)
    loss = model.auxiliary_loss()
    assert loss is not None and loss is model.body.auxiliary_loss()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("body", BODIES)
@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 16), min_size=1, max_size=4), padding=st.integers(0, 60), seed=st.integers(0, 99)
)
def test_a_padded_text_is_scored_as_it_is_alone(body: str, pooling: str, lengths: list[int], padding: int, seed: int):
    model, valid = build(BODIES[body], classify(pooling)), padded(lengths, 16)
    tokens = torch.randint(61, (len(lengths), 16), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        together = model(tokens.masked_fill(~valid, padding), valid)
        alone = torch.cat([model(tokens[row : row + 1, :length]) for row, length in enumerate(lengths)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("body", BODIES)
@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_a_padded_sentence_is_tagged_as_it_is_alone(body: str, lengths: list[int], seed: int):
    model, valid = build(BODIES[body], tag()), padded(lengths, 16)
    tokens = torch.randint(61, (len(lengths), 16), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        together = model(tokens.masked_fill(~valid, 0), valid)
        alone = torch.cat([model(tokens[row : row + 1, :length])[0] for row, length in enumerate(lengths)])
    torch.testing.assert_close(together[valid], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("body", BODIES)
def test_a_label_is_read_off_a_state_that_has_seen_the_whole_text(body: str):
    model = build(BODIES[body], classify())
    assert model.pooling == ("first" if body == "bert" else "last")
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        for position in range(8):
            changed = tokens.clone()
            changed[0, position] = 60
            assert not torch.allclose(model(tokens), model(changed), atol=1e-4), position


@pytest.mark.parametrize("task", [classify("first"), classify("last"), classify("mean"), tag()])
@pytest.mark.parametrize("body", BODIES)
def test_gradients_reach_all_of_the_body(body: str, task: ClassifyConfig | TagConfig):
    model = build(BODIES[body], task)
    tokens = torch.arange(16).repeat(2, 1)
    scores = model(tokens, padded([16, 5], 16))
    F.cross_entropy(scores.flatten(0, -2), torch.ones(scores.shape[:-1].numel(), dtype=torch.int64)).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("task", [classify("first"), classify("last"), classify("mean"), tag()])
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("changes", [{}, {"d_ff": 40, "context": 32, "n_layers": 3}])
def test_flops_and_parameters_with_labels_are_what_torch_counts(
    body: str, changes: dict, task: ClassifyConfig | TagConfig
):
    config = BODIES[body].model_copy(update=changes)
    with torch.device("meta"):  # on CPU tensors the counter gives 0 for attention
        model = build_model(config, 0, task)
        tokens = torch.zeros(3, config.context, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(tokens, torch.ones_like(tokens, dtype=torch.bool)).sum().backward()
    count = count_model(config, task)
    # A division by the context, a power of two here, is exact.
    assert counter.get_total_flops() == count.flops_per_token * 3 * config.context
    assert sum(weight.numel() for weight in model.parameters()) == count.n_params
    matrices = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert sum(weight.numel() for weight in matrices) == count.n_params_matmul
