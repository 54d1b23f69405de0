"""minGRU: parallel and step by step it is one model; its formulas equal what torch counts and saves."""

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lmexp.config.models.mingru import MinGRUConfig
from lmexp.config.schema import RunConfig
from lmexp.cost.flops import count_model
from lmexp.models.base import Decoder
from lmexp.models.build import build_model
from lmexp.models.mingru import MinGRU, scan
from tests.cost.test_memory import assert_about_what_autograd_saves


def tiny(**changes: object) -> MinGRUConfig:
    values = {"name": "t", "n_layers": 2, "d_model": 24, "context": 13, "vocab_size": 61}
    return MinGRUConfig.model_validate({"_target_": "lmexp.models.mingru.MinGRU", **values, **changes})


def disturbed(config: MinGRUConfig) -> MinGRU:
    """A model whose weights are large enough for each position to matter to those after it."""
    model = build_model(config, seed=0)
    assert isinstance(model, MinGRU)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model.eval()


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
def test_the_scan_is_the_recurrence_one_step_after_the_other(length: int):
    forget, offered = torch.rand(2, length, 5, dtype=torch.float64), torch.randn(2, length, 5, dtype=torch.float64)
    state, expected = torch.zeros(2, 5, dtype=torch.float64), []
    for position in range(length):
        state = forget[:, position] * state + offered[:, position]
        expected.append(state)
    torch.testing.assert_close(scan(forget, offered), torch.stack(expected, dim=1))


def test_no_position_sees_a_later_one_and_each_sees_the_first():
    model, tokens = disturbed(tiny()), torch.arange(13)[None]
    changed = tokens.clone()
    changed[0, 6] = 50
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert (before[:, 6:] - after[:, 6:]).abs().amax(-1).min() > 1e-5


@torch.no_grad()
def test_a_text_read_in_pieces_has_the_logits_of_the_whole():
    model, tokens = disturbed(tiny()), torch.randint(61, (2, 13))
    assert isinstance(model, Decoder)
    cache = model.new_cache(2)
    pieces = [model(piece, cache) for piece in tokens.split([1, 4, 1, 7], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), rtol=1e-4, atol=1e-5)
    assert cache[0].length == 13 and cache[0].nbytes == 2 * 24 * 4
    with pytest.raises(ValueError, match="14 tokens are more than the model's context of 13"):
        model(tokens[:, :1], cache)


@pytest.mark.parametrize("changes", [{}, {"d_ff": 40, "tie_embeddings": False}, {"n_layers": 1, "context": 1}])
def test_parameters_and_flops_are_what_torch_counts(changes: dict[str, object]):
    config = tiny(**changes)
    count = count_model(config)
    with torch.device("meta"):
        model = MinGRU(config)
    assert sum(weight.numel() for weight in model.parameters()) == count.n_params
    tokens = torch.zeros(1, config.context, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(tokens).sum().backward()
    assert counter.get_total_flops() == count.flops_per_token * config.context


@pytest.mark.parametrize("size", [{}, {"n_layers": 4, "d_model": 128, "context": 64}])
def test_activations_are_within_a_fifth_of_what_autograd_saves(size: dict[str, int], config: Callable[..., RunConfig]):
    for precision in ("fp32", "bf16", "bf16_true"):
        run = config(f"precision={precision}")
        for dropout in (0.0, 0.1):
            model = tiny(**({"d_model": 64, "context": 32} | size), dropout=dropout)
            assert_about_what_autograd_saves(run.model_copy(update={"model": model}), (precision, dropout))
