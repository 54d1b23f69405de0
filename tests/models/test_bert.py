"""The BERT family: equal to an independent implementation, blind to padding, of the published sizes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.models.bert import BertConfig
from lmexp.cost.flops import count_model
from lmexp.models.base import Decoder
from lmexp.models.bert import Bert
from lmexp.models.build import build_model
from lmexp.models.stacked import split_parts

SIZES = ["bert_tiny", "bert_mini", "bert_small", "bert_medium", "bert_base", "bert_large"]


def tiny(**changes: object) -> BertConfig:
    values = {"name": "t", "n_layers": 2, "d_model": 24, "n_heads": 3, "context": 16, "vocab_size": 61}
    return BertConfig.model_validate({"_target_": "lmexp.models.bert.Bert", **values, **changes})


def disturbed(**changes: object) -> Bert:
    """A model whose biases and norms are away from 0 and 1, so that a swap would show."""
    model = build_model(tiny(**changes), seed=1).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    assert isinstance(model, Bert)
    return model


def padded(lengths: list[int], to: int) -> torch.Tensor:
    """Return what is valid in sequences of these lengths: (B, to) bool."""
    return torch.arange(to) < torch.tensor(lengths)[:, None]


THEIRS = {
    "token_embedding": "bert.embeddings.word_embeddings",
    "position_embedding": "bert.embeddings.position_embeddings",
    "norm": "bert.embeddings.LayerNorm",
    "head_transform": "cls.predictions.transform.dense",
    "head_norm": "cls.predictions.transform.LayerNorm",
    "head": "cls.predictions.decoder",
}
THEIRS_IN_A_BLOCK = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.out": "attention.output.dense",
    "norm_attention": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm_feed_forward": "output.LayerNorm",
}


@torch.no_grad()
def test_logits_equal_transformers_bert_with_the_same_weights_with_and_without_padding():
    from transformers import BertConfig as TheirConfig
    from transformers import BertForMaskedLM

    ours = disturbed(d_ff=40)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    theirs = BertForMaskedLM(TheirConfig(vocab_size=61, max_position_embeddings=16, **sizes)).eval()
    weights = split_parts(ours.state_dict(), ours)
    names = THEIRS | {
        f"blocks.{layer}.{old}": f"bert.encoder.layer.{layer}.{new}"
        for layer in range(2)
        for old, new in THEIRS_IN_A_BLOCK.items()
    }
    copied = {
        f"{new}.{part}": weights[f"{old}.{part}"]
        for old, new in names.items()
        for part in ("weight", "bias")
        if f"{old}.{part}" in weights
    }
    copied["cls.predictions.bias"] = ours.head.bias
    segments = "bert.embeddings.token_type_embeddings.weight"  # ours has none
    copied[segments] = torch.zeros(2, 24)
    theirs.load_state_dict(copied)

    tokens = torch.randint(0, 61, (3, 16))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=1e-5, rtol=1e-5)
    valid = padded([16, 9, 1], 16)
    logits = theirs(tokens, attention_mask=valid.long()).logits
    torch.testing.assert_close(ours(tokens, valid=valid)[valid], logits[valid], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours(tokens)[1, :9], logits[1, :9], atol=1e-2)  # the mask matters


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 16), min_size=1, max_size=4), padding=st.integers(0, 60), seed=st.integers(0, 99)
)
def test_a_padded_batch_gives_each_sequence_what_it_gets_alone(lengths: list[int], padding: int, seed: int):
    model, valid = disturbed(), padded(lengths, 16)
    tokens = torch.randint(61, (len(lengths), 16), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        together = model(tokens.masked_fill(~valid, padding), valid=valid)
        for row, length in enumerate(lengths):
            alone = model(tokens[row : row + 1, :length])
            torch.testing.assert_close(together[row : row + 1, :length], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_position_sees_those_before_and_after_it():
    model, tokens = disturbed(), torch.arange(16)[None]
    for position in (0, 15):
        changed = tokens.clone()
        changed[0, position] = 60
        apart = (model(tokens) - model(changed)).abs().amax(-1)[0]
        assert (apart > 1e-4).all()


def test_a_longer_sequence_than_the_context_is_refused():
    with pytest.raises(ValueError, match="17 tokens are more than the model's context of 16"):
        build_model(tiny(), 0)(torch.zeros(1, 17, dtype=torch.int64))


def test_an_encoder_has_no_cache():
    model = build_model(tiny(), 0)
    assert not isinstance(model, Decoder)
    with pytest.raises(ValueError, match="no cache"):
        model(torch.zeros(1, 4, dtype=torch.int64), cache=[])


def test_weights_are_a_function_of_the_seed_and_the_table_is_tied():
    first, again, other = (build_model(tiny(), seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)
    assert first.head.weight is first.token_embedding.weight


def test_dropout_acts_in_training_only():
    model, tokens = disturbed(dropout=0.5), torch.arange(16)[None]
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    assert not torch.equal(model(tokens), model(tokens))
    read: list[torch.Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda block, given: read.append(given[0]))
    model(tokens)
    assert 0.3 < (read[0] == 0).float().mean() < 0.7  # of the embeddings half are dropped


def test_dropout_is_on_the_embeddings_on_what_each_half_adds_and_on_attention():
    model, tokens, dropped = disturbed(dropout=0.5), torch.arange(16)[None], []
    plain = model(tokens)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda dropout, given, result: dropped.append(dropout.p))
    model(tokens)
    assert dropped == [0.5] * (1 + 2 * 2)
    for block in model.blocks:
        block.attention.training = True
        assert not torch.equal(model(tokens), plain)
        block.attention.training = False


def test_matrices_start_from_a_narrow_normal_biases_at_zero_and_norms_at_one():
    for name, weight in build_model(tiny(d_model=96, vocab_size=300), seed=0).named_parameters():
        if weight.ndim == 2:
            # The standard error of a standard deviation of n draws is 1 / sqrt(2 n); five of them.
            assert weight.std().item() == pytest.approx(0.02, rel=5 / math.sqrt(2 * weight.numel())), name
        else:
            assert (weight == (1 if "norm" in name and "weight" in name else 0)).all(), name


def test_without_its_head_a_model_has_the_same_hidden_states_and_nothing_of_the_head():
    model, tokens = disturbed(), torch.arange(16)[None]
    before = model.hidden(tokens)
    model.drop_head()
    assert torch.equal(model.hidden(tokens), before) and before.shape[-1] == model.width
    assert not any("head" in name for name in model.state_dict())
    assert list(model.layers()) == list(model.blocks)


@pytest.mark.parametrize("changes", [{}, {"d_ff": 40}, {"n_layers": 3, "n_heads": 1}])
def test_counted_parameters_are_the_models(changes: dict):
    config = tiny(**changes)
    with torch.device("meta"):
        model = Bert(config)
    count = count_model(config)
    assert sum(weight.numel() for weight in model.parameters()) == count.n_params == count.n_params_active
    embeddings = [model.token_embedding, model.position_embedding]
    assert sum(e.weight.numel() for e in embeddings) == count.n_params_embedding
    matrices = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert sum(weight.numel() for weight in matrices) == count.n_params_matmul


@pytest.mark.parametrize("with_padding", [False, True])
@pytest.mark.parametrize("name", ["bert_nano", "bert_tiny", "bert_base"])
def test_training_flops_equal_what_torch_counts_on_meta_tensors(name: str, with_padding: bool):
    config = shipped(name, vocab_size=30522)
    with torch.device("meta"):  # on CPU tensors the counter gives 0 for attention
        model = Bert(config)
        tokens = torch.zeros(3, config.context, dtype=torch.int64)
        valid = torch.ones(3, config.context, dtype=torch.bool) if with_padding else None
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(tokens, valid=valid).flatten(0, 1), tokens.flatten()).backward()
    count = count_model(config)
    assert counter.get_total_flops() == count.flops_per_token * 3 * config.context
    scores = 12 * config.n_layers * config.d_model * config.context
    assert count.flops_per_token == 6 * count.n_params_matmul + scores


def test_no_attention_is_masked_so_no_convention_halves_it():
    count = count_model(tiny())
    assert count.conventions()["flops_per_token_causal"] == count.flops_per_token
    # Kaplan et al. leave out the head, and so its transform.
    assert count.conventions()["flops_per_token_kaplan"] == 6 * 12 * 2 * 24**2


def shipped(name: str, vocab_size: int) -> BertConfig:
    config = Composer(paths.search_roots(), words=[f"model={name}", f"model.vocab_size={vocab_size}"]).config({}).model
    assert isinstance(config, BertConfig)
    return config


# Millions of parameters of the published weights: the encoder, its pooler, and both heads of pretraining
# (Turc et al. 2019; Devlin et al. 2018, whose 110M and 340M are these, rounded).
PUBLISHED = dict(zip(SIZES, [4.4, 11.3, 29.1, 41.7, 110.1, 336.2], strict=True))


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes_have_their_published_parameters_less_what_is_not_here(name: str):
    from transformers import BertConfig as TheirConfig
    from transformers import BertForPreTraining

    config = shipped(name, vocab_size=30522)
    with torch.device("meta"):
        theirs = BertForPreTraining(
            TheirConfig(
                hidden_size=config.d_model,
                num_hidden_layers=config.n_layers,
                num_attention_heads=config.n_heads,
                intermediate_size=config.d_feed_forward,
            )
        ).num_parameters()
    assert round(theirs / 1e6, 1) == PUBLISHED[name]
    width = config.d_model
    segments, pooler, sentence_pairs = 2 * width, width * width + width, 2 * width + 2
    assert count_model(config).n_params == theirs - segments - pooler - sentence_pairs
