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
