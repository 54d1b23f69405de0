"""FLOPs: the formula equals what torch counts, difference zero."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lmexp.config.schema import GPTConfig
from lmexp.cost.flops import count_model
from lmexp.models.gpt import GPT

SHAPES = [
    {"n_layers": 1, "d_model": 16, "n_heads": 1, "context": 8, "vocab_size": 11},
    {"n_layers": 3, "d_model": 48, "n_heads": 4, "context": 32, "vocab_size": 100},
    {"n_layers": 2, "d_model": 64, "n_heads": 8, "context": 128, "vocab_size": 257, "d_ff": 100},
    {"n_layers": 12, "d_model": 768, "n_heads": 12, "context": 1024, "vocab_size": 50257},
]


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"L{shape['n_layers']}d{shape['d_model']}")
def test_training_flops_equal_what_torch_counts_on_meta_tensors(shape: dict, bias: bool, tie: bool):
    config = GPTConfig.model_validate(
        {"_target_": "lmexp.models.gpt.GPT", "name": "t", "bias": bias, "tie_embeddings": tie, **shape}
    )
    with torch.device("meta"):  # on CPU tensors the counter gives 0 for attention
        model = GPT(config)
        tokens = torch.zeros(3, config.context, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        logits = model(tokens)
        F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
    assert counter.get_total_flops() == count_model(config).flops_per_token * 3 * config.context


def test_the_formula_is_six_per_parameter_and_twelve_l_d_t():
    config = GPTConfig.model_validate({"_target_": "lmexp.models.gpt.GPT", "name": "t", **SHAPES[-1]})
    count = count_model(config)
    assert count.flops_per_token == 6 * count.n_params_matmul + 12 * 12 * 768 * 1024


def small_gpt(**changes: object) -> GPTConfig:
    return GPTConfig.model_validate({"_target_": "lmexp.models.gpt.GPT", "name": "t", **SHAPES[1], **changes})


def test_other_conventions_are_what_their_papers_count():
    config = small_gpt()
    count, said = count_model(config), count_model(config).conventions()
    layers, width, length, vocab = 3, 48, 32, 100
    assert said["flops_per_token_6n"] == 6 * count.n_params
    assert said["flops_per_token_kaplan"] == 6 * 12 * layers * width**2  # N = 12 L d^2 (Kaplan et al., table 1)
    scores = 12 * layers * width * length
    assert said["flops_per_token_causal"] == count.flops_per_token - scores // 2
    # Forward (2 matmuls of 2 T d each) and backward: 5 matmuls where the formula counts 4 (FlashAttention).
    assert said["flops_per_token_hardware"] == count.flops_per_token + 2 * layers * width * length
    forward_of_layers = (count.flops_per_token - 6 * vocab * width) // 3
    assert said["flops_per_token_recompute"] == said["flops_per_token_hardware"] + forward_of_layers


def test_conventions_differ_by_three_times_for_a_long_context_and_a_large_vocabulary():
    # The case of the record: d 768, 12 layers, T 4096, V 100k, from 0.68 to 2.06 GFLOP a token by who counts.
    count = count_model(small_gpt(n_layers=12, d_model=768, n_heads=12, context=4096, vocab_size=100_000))
    each = [count.flops_per_token, *count.conventions().values()]
    assert max(each) / min(each) > 3


def test_recomputing_layers_costs_what_torch_counts():
    from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

    config = small_gpt()
    with torch.device("meta"):
        model, tokens = GPT(config), torch.zeros(2, config.context, dtype=torch.int64)
        for block in model.blocks:
            plain = block.forward
            block.forward = lambda x, *more, plain=plain: checkpoint(plain, x, use_reentrant=False)  # type: ignore
    # Torch would leave out a layer's last product, whose result nobody saves; the convention counts all of it.
    with set_checkpoint_early_stop(False), FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
    count = count_model(config)
    fused = count.conventions()["flops_per_token_hardware"] - count.flops_per_token
    recomputed = count.conventions()["flops_per_token_recompute"] - fused
    assert counter.get_total_flops() == recomputed * 2 * config.context
