"""The mixture of experts: equal to independent implementations, sparse, balanced, causal, its FLOPs exact."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lmexp.config.models.llama import LlamaConfig
from lmexp.config.models.moe import MoEConfig
from lmexp.cost.flops import count_model
from lmexp.models.build import build_model
from lmexp.models.moe import Experts, MoE
from tests.models.test_exchange_llama import in_transformers
from tests.models.test_llama import shipped

CONTEXT = 16
VARIANTS: dict[str, dict] = {
    "mixtral": {"n_kv_heads": 2},
    "window": {"window": 5},
    "one_of_many": {"experts_per_token": 1, "n_experts": 6},
    "shared": {"n_shared_experts": 2, "experts_per_token": 3},
    "qk_norm": {"qk_norm": True},
}


def tiny(**changes: object) -> MoEConfig:
    values = {"name": "t", "n_layers": 2, "d_model": 24, "n_heads": 4, "context": CONTEXT, "vocab_size": 61, "d_ff": 20}
    return MoEConfig.model_validate({"_target_": "lmexp.models.moe.MoE", "n_experts": 5, **values, **changes})


def model_of(**changes: object) -> MoE:
    """A model with weights large enough for every expert to make a difference, and for a swap to show."""
    model = build_model(tiny(**changes), seed=1).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    assert isinstance(model, MoE)
    return model


def experts_of(**changes: object) -> Experts:
    layer = model_of(**changes).blocks[0].feed_forward
    assert isinstance(layer, Experts)
    return layer


def tokens_of(batch: int, length: int = CONTEXT) -> torch.Tensor:
    return torch.randint(61, (batch, length), generator=torch.Generator().manual_seed(7))


def states_of(batch: int, length: int = CONTEXT) -> torch.Tensor:
    return torch.randn(batch, length, 24, generator=torch.Generator().manual_seed(7))


# What comes out


@pytest.mark.parametrize(
    "changes", [{"n_kv_heads": 2}, {"experts_per_token": 1}, {"window": 5}, {"qk_norm": True, "experts_per_token": 3}]
)
def test_logits_equal_transformers_with_the_same_weights(changes: dict, tmp_path: Path):
    model, tokens = model_of(**changes), tokens_of(3)
    with torch.no_grad():
        theirs = in_transformers(model, tmp_path)(tokens).logits
        torch.testing.assert_close(model(tokens), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_balance_is_transformers_for_each_layer(k: int, padded: bool, tmp_path: Path):
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    model, tokens = model_of(experts_per_token=k, balance=0.25), tokens_of(3)
    valid = torch.arange(CONTEXT) < torch.tensor([[16], [9], [3]]) if padded else torch.ones(3, CONTEXT).bool()
    reference = in_transformers(model, tmp_path)
    with torch.no_grad():
        logits = reference(tokens, attention_mask=valid.long(), output_router_logits=True).router_logits
    expected = sum(load_balancing_loss_func((layer,), 5, k, valid if padded else None) for layer in logits)
    model.train()(tokens, valid=valid if padded else None)
    ours = model.auxiliary_loss()
    assert ours is not None
    torch.testing.assert_close(ours, 0.25 * expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("n_shared", [0, 1, 2])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_token_gets_its_best_experts_by_their_weights_and_the_shared_ones_in_full(k: int, n_shared: int):
    layer, x = experts_of(experts_per_token=k, n_shared_experts=n_shared), states_of(2)

    def swiglu(token: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        return down @ (F.silu(gate @ token) * (up @ token))

    expected = torch.zeros_like(x)
    for sequence in range(2):
        for position in range(CONTEXT):
            token = x[sequence, position]
            scores = [float(row @ token) for row in layer.router.weight]
            best = sorted(range(5), key=lambda expert: -scores[expert])[:k]
            weights = torch.tensor([scores[expert] for expert in best]).softmax(0)
            for expert, weight in zip(best, weights, strict=True):
                own = layer.experts[expert]
                expected[sequence, position] += weight * swiglu(token, own.gate.weight, own.up.weight, own.down.weight)
            for index in range(n_shared):  # each is a slice of one wide layer
                rows = slice(20 * index, 20 * (index + 1))
                wide = layer.shared
                gate, up, down = wide.gate.weight[rows], wide.up.weight[rows], wide.down.weight[:, rows]
                expected[sequence, position] += swiglu(token, gate, up, down)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_only_tokens_that_chose_an_expert_go_through_it():
    layer, x = experts_of(), states_of(3)
    seen: dict[int, torch.Tensor] = {}
    for index, expert in enumerate(layer.experts):
        expert.register_forward_pre_hook(lambda module, given, index=index: seen.update({index: given[0]}))
    layer(x)
    chosen = (x.flatten(0, 1) @ layer.router.weight.T).topk(2).indices
    for index in range(5):
        assert torch.equal(seen[index], x.flatten(0, 1)[(chosen == index).any(-1)])
    assert sum(len(tokens) for tokens in seen.values()) == 3 * CONTEXT * 2


# The router and its loss


def routed(layer: Experts, probabilities: list[list[float]]) -> Experts:
    layer.routed = torch.tensor(probabilities), torch.tensor(probabilities).topk(layer.n_chosen).indices
    return layer


def test_the_balance_of_an_even_spread_is_the_experts_of_a_token():
    # Four tokens, each pair of neighbours chosen once: every expert by half of the tokens, at a mean of 1/4.
    rows = [[0.4, 0.4, 0.1, 0.1], [0.1, 0.4, 0.4, 0.1], [0.1, 0.1, 0.4, 0.4], [0.4, 0.1, 0.1, 0.4]]
    assert routed(experts_of(n_experts=4), rows).balance(None).item() == pytest.approx(2)


def test_the_balance_of_a_collapse_is_the_number_of_experts():
    layer = experts_of(n_experts=4, experts_per_token=1)
    assert routed(layer, [[1.0, 0.0, 0.0, 0.0]] * 3).balance(None).item() == pytest.approx(4)


def test_padding_does_not_count_in_the_balance():
    layer, rows = experts_of(n_experts=4, experts_per_token=1), [[0.7, 0.1, 0.1, 0.1], [0.1, 0.6, 0.2, 0.1]]
    alone = routed(layer, rows).balance(None)
    padded = routed(layer, [rows[0], [0.0, 0.0, 0.0, 1.0], rows[1], [0.0, 0.0, 1.0, 0.0]])
    torch.testing.assert_close(padded.balance(torch.tensor([[True, False], [True, False]])), alone)


def test_the_loss_is_for_training_alone_and_where_it_has_a_weight():
    model, tokens = model_of(), tokens_of(1)
    assert model.auxiliary_loss() is None
    model.train()(tokens)
    assert model.auxiliary_loss() is not None
    model.eval()(tokens)
    assert model.auxiliary_loss() is None
    without = model_of(balance=0).train()
    without(tokens)
    assert without.auxiliary_loss() is None


def test_descending_the_loss_spreads_tokens_evenly():
    torch.manual_seed(0)
    layer, x = experts_of(n_experts=4, experts_per_token=1, balance=1), torch.randn(1, 512, 24)
    with torch.no_grad():
        layer.router.weight[0] += 0.5 * torch.ones(24)
        x += 0.5  # so that the first expert is nearly everybody's
    optimizer = torch.optim.Adam([layer.router.weight], 0.01)
    shares = []
    for _ in range(60):
        layer.train()(x)
        assert layer.routed is not None
        shares.append(layer.routed[1].flatten().bincount(minlength=4).max().item() / 512)
        loss = layer.balance(None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert shares[0] > 0.8 and shares[-1] < 0.4


def test_the_router_is_float32_under_autocast_and_in_a_bf16_model():
    layer, x = experts_of().train(), states_of(2)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert layer.routed is not None
    assert torch.equal(layer.routed[0], (x.flatten(0, 1) @ layer.router.weight.T).softmax(-1))
    assert out.dtype == torch.float32
    half = layer.bfloat16()
    assert half(x.bfloat16()).dtype == torch.bfloat16
    expected = (x.bfloat16().float().flatten(0, 1) @ layer.router.weight.float().T).softmax(-1)
    assert half.routed is not None and torch.equal(half.routed[0], expected)


def test_every_weight_has_a_gradient_though_an_expert_has_no_token():
    model, tokens = model_of(n_shared_experts=1).train(), tokens_of(1, 1)  # one token, two of five experts
    loss = F.cross_entropy(model(tokens)[:, -1], tokens[:, 0])
    extra = model.auxiliary_loss()
    assert extra is not None
    (loss + extra).backward()
    assert all(weight.grad is not None for weight in model.parameters())
    gradients = [expert.up.weight.grad.abs().sum().item() for expert in model.blocks[0].feed_forward.experts]
    assert sum(size > 0 for size in gradients) == 2


# As for every decoder. Other sizes of an expert's group round otherwise, hence a tolerance and not equality.


@settings(max_examples=40, deadline=None)
@given(position=st.integers(1, CONTEXT - 1), token=st.integers(0, 60), variant=st.sampled_from(sorted(VARIANTS)))
def test_a_later_token_changes_no_earlier_logit(position: int, token: int, variant: str):
    model = model_of(**VARIANTS[variant])
    before = tokens_of(1)
    after = before.clone()
    after[0, position] = token
    with torch.no_grad():
        before, after = model(before)[:, :position], model(after)[:, :position]
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.sets(st.integers(1, CONTEXT - 1)),
    batch=st.integers(1, 3),
    variant=st.sampled_from(sorted(VARIANTS)),
)
def test_a_text_read_in_any_pieces_gets_the_scores_of_one_reading(cuts: set[int], batch: int, variant: str):
    model, tokens = model_of(**VARIANTS[variant]), tokens_of(batch)
    edges = [0, *sorted(cuts), CONTEXT]
    with torch.no_grad():
        cache = model.new_cache(batch, CONTEXT)
        pieces = [model(tokens[:, a:b], cache) for a, b in pairwise(edges)]
        torch.testing.assert_close(torch.cat(pieces, 1), model(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_nothing_before_it(variant: str):
    model, tokens = model_of(**VARIANTS[variant]), tokens_of(2)
    valid = torch.arange(CONTEXT) < torch.tensor([[11], [16]])
    with torch.no_grad():
        padded = model(tokens * valid, valid=valid)
        torch.testing.assert_close(padded[:1, :11], model(tokens[:1, :11]), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(padded[1:], model(tokens[1:]), atol=1e-5, rtol=1e-5)


def test_residual_matrices_of_all_experts_start_smaller():
    model = build_model(tiny(d_model=64, d_ff=64, n_layers=8, n_shared_experts=1), seed=0)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            expected = 0.02 / 4 if name.endswith(("out.weight", "down.weight")) else 0.02
            # The standard error of a standard deviation of n draws is 1 / sqrt(2 n); five of them.
            assert weight.std().item() == pytest.approx(expected, rel=5 / (2 * weight.numel()) ** 0.5), name


# Parameters and FLOPs

SHAPES: list[dict] = [
    {"n_layers": 1, "d_model": 16, "n_heads": 1, "context": 8, "vocab_size": 11, "experts_per_token": 1},
    # 3 x 32 x 3 pairs among 5 experts: no even split.
    {"n_layers": 3, "d_model": 48, "n_heads": 4, "context": 32, "vocab_size": 100, "experts_per_token": 3},
    {"n_layers": 2, "d_model": 64, "n_heads": 8, "context": 128, "n_kv_heads": 2, "n_shared_experts": 2, "d_ff": None},
    {"n_layers": 2, "d_model": 96, "n_heads": 3, "context": 64, "head_size": 40, "qk_norm": True, "n_experts": 16},
    {"n_layers": 1, "d_model": 64, "n_heads": 8, "context": 32, "experts_per_token": 5},  # all of them
]


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"L{shape['n_layers']}d{shape['d_model']}")
def test_parameters_and_training_flops_equal_what_torch_counts(shape: dict, tie: bool):
    config = tiny(**shape, tie_embeddings=tie)
    with torch.device("meta"):  # on CPU tensors the counter gives 0 for attention
        model, tokens = MoE(config).train(), torch.zeros(3, config.context, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        extra = model.auxiliary_loss()
        assert extra is not None
        (loss + extra).backward()
    count = count_model(config)
    assert counter.get_total_flops() == count.flops_per_token * 3 * config.context
    assert sum(weight.numel() for weight in model.parameters()) == count.n_params
    expert = sum(weight.numel() for weight in model.blocks[0].feed_forward.experts[0].parameters())
    idle = config.n_layers * (config.n_experts - config.experts_per_token) * expert
    assert count.n_params_active == count.n_params - idle
    matrices = sum(weight.numel() for weight in model.blocks.parameters() if weight.ndim == 2)
    assert count.n_params_matmul == matrices - idle + model.head.weight.numel()


def test_a_window_counts_by_what_it_needs():
    count = count_model(tiny(context=32, window=8))
    assert count.flops_per_token == 6 * count.n_params_matmul + 2 * 12 * 24 * 8


def test_mixtral_has_its_published_parameters():
    count = count_model(shipped("mixtral_8x7b", 32_000))
    assert count.n_params == 46_702_792_704  # of the published weights; the paper says 47B, and 13B active
    assert round(count.n_params_active / 1e9) == 13


@pytest.mark.parametrize("size", ["nano", "tiny"])
def test_small_sizes_work_as_hard_as_llamas(size: str):
    moe, llama = shipped(f"moe_{size}", 256), shipped(f"llama_{size}", 256)
    assert isinstance(moe, MoEConfig) and isinstance(llama, LlamaConfig)
    router = moe.n_layers * moe.d_model * moe.n_experts
    assert count_model(moe).n_params_active - router == count_model(llama).n_params
    assert count_model(moe).n_params_matmul - router == count_model(llama).n_params_matmul
