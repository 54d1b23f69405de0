"""FLOPs: the formula equals what torch counts, difference zero."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.models.gpt import GPTConfig
from lmexp.config.models.moe import MoEConfig
from lmexp.config.tasks.classify import ClassifyConfig
from lmexp.cost.flops import count_model
from lmexp.models.build import build_model
from lmexp.models.gpt import GPT
from lmexp.train.recompute import recompute_layers
from tests.models.test_encdec import tiny as tiny_encdec
from tests.models.test_lstm import tiny as tiny_lstm

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


def test_of_an_encoder_decoder_only_what_targets_see_of_each_other_is_half_masked():
    config = tiny_encdec(n_layers=2, d_model=24, d_ff=40, context=7, input_context=9)  # 16 tokens a pair
    count = count_model(config)
    ours, said = 16 * count.flops_per_token, {name: 16 * flops for name, flops in count.conventions().items()}
    target, source, across = (12 * 2 * 24 * pairs for pairs in (7 * 7, 9 * 9, 7 * 9))
    assert ours - said["flops_per_token_causal"] == target / 2
    assert said["flops_per_token_hardware"] - ours == (target + source + across) / 6
    encoder = decoder = 4 * 24 * 24 + 2 * 24 * 40  # matrices of a layer, but for those that look at the source
    looking = looked_at = 2 * 24 * 24
    assert said["flops_per_token_kaplan"] == 6 * 2 * (9 * (encoder + looked_at) + 7 * (decoder + looking))


def test_an_encoder_decoder_has_no_head_over_labels():
    task = ClassifyConfig.model_validate({"_target_": "lmexp.tasks.classify.Classify", "labels": ["a", "b"]})
    with pytest.raises(ValueError, match="predicts tokens, not labels"):
        count_model(tiny_encdec(), task)


def test_an_lstms_bridge_to_its_table_is_of_the_head_and_it_has_no_scores():
    count = count_model(tiny_lstm(n_layers=2, d_model=24, d_embedding=10, context=16))
    said, bridge_and_table = count.conventions(), 6 * (24 * 10 + 10 * 61)
    assert said["flops_per_token_kaplan"] == count.flops_per_token - bridge_and_table
    assert said["flops_per_token_causal"] == said["flops_per_token_hardware"] == count.flops_per_token


def test_six_times_n_counts_the_experts_that_a_token_goes_through():
    shape = {"name": "t", "n_layers": 3, "d_model": 48, "n_heads": 4, "context": 32, "vocab_size": 100, "d_ff": 64}
    config = MoEConfig.model_validate({"_target_": "lmexp.models.moe.MoE", **shape, "n_experts": 8})
    count, expert = count_model(config), 3 * 48 * 64
    used = count.n_params - 3 * (8 - 2) * expert
    assert count.conventions()["flops_per_token_6n"] == 6 * used


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


@pytest.mark.parametrize(
    "words",
    [
        "model=gpt_nano",
        "model=llama_nano",
        "model=mingru_nano",
        "model=bert_nano task=masked_lm model.dropout=0",
        "model=encdec_nano task=seq2seq data=reverse model.input_vocab_size=61 model.pre_norm=true model.dropout=0",
    ],
)
def test_what_activation_checkpointing_executes_is_what_torch_counts(words: str):
    config = Composer(paths.search_roots(), words=[*words.split(), "model.vocab_size=61", "model.context=16"]).config(
        {}
    )
    count = count_model(config.model)
    fused = count.executed(False) - count.flops_per_token  # torch counts a fused backward pass of attention as another
    for how in ("selective", "full"):
        with torch.device("meta"):
            model, tokens = build_model(config.model, seed=0), torch.zeros(2, 16, dtype=torch.int64)
            source = torch.zeros(2, config.model.source_limit[0], dtype=torch.int64)
        recompute_layers(model, how)
        with FlopCounterMode(display=False) as counter:
            model(*([source, None, tokens] if config.model.family == "encdec" else [tokens])).sum().backward()
        expected = (count.executed(how == "full") - fused) * 2 * config.model.sequence_tokens
        assert counter.get_total_flops() == pytest.approx(expected, rel=1e-9), how
