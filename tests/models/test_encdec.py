"""The encoder-decoder: equal to torch's own Transformer, blind to padding and to the future, of the published sizes."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.models.encdec import EncDecConfig
from lmexp.cost.flops import count_model
from lmexp.models.build import build_model
from lmexp.models.decoding import SourceDecoder
from lmexp.models.encdec import EncDec, sinusoids
from lmexp.models.stacked import split_parts

TARGET = "lmexp.models.encdec.EncDec"
SOURCES, TARGETS = 9, 7
"""Longest source and target of the tiny model."""


def tiny(**changes: object) -> EncDecConfig:
    values = {"name": "t", "n_layers": 2, "d_model": 24, "n_heads": 3, "d_ff": 40, "dropout": 0.0}
    values |= {"context": TARGETS, "input_context": SOURCES, "vocab_size": 31, "input_vocab_size": 19}
    return EncDecConfig.model_validate({"_target_": TARGET, **values, **changes})


def model_of(config: EncDecConfig | None = None, seed: int = 0) -> EncDec:
    """A model with every weight moved, biases and norms too, so that a swap or a wrong mask would show."""
    model = build_model(config or tiny(), seed).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    assert isinstance(model, EncDec)
    return model


def pairs(batch: int, seed: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(seed)
    return (
        torch.randint(19, (batch, SOURCES), generator=dice),
        torch.randint(31, (batch, TARGETS), generator=dice),
    )


def valid_of(*lengths: int) -> torch.Tensor:
    return torch.arange(SOURCES) < torch.tensor(lengths)[:, None]


# the function


def torchs(model: EncDec) -> nn.Transformer:
    """torch.nn.Transformer with the same weights."""
    config = model.config
    sizes = (config.d_model, config.n_heads, config.d_feed_forward, 0.0)
    options = {"batch_first": True, "norm_first": config.pre_norm}
    norms = [nn.LayerNorm(config.d_model) if config.pre_norm else None for _ in range(2)]
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(*sizes, **options), config.n_layers, norms[0], enable_nested_tensor=False
    )
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(*sizes, **options), config.n_layers, norms[1])
    theirs = nn.Transformer(custom_encoder=encoder, custom_decoder=decoder, **options, d_model=24, nhead=3)

    ours, copied = split_parts(model.state_dict(), model), {}
    names = {"up": "linear1", "down": "linear2"}
    halves = {"encoder": ["attention"], "decoder": ["attention", "cross_attention"]}
    for stack, attentions in halves.items():
        for index in range(config.n_layers):
            here, there = f"{stack}.{index}", f"{stack}.layers.{index}"
            for part in ("weight", "bias"):
                for old, new in names.items():
                    copied[f"{there}.{new}.{part}"] = ours[f"{here}.{old}.{part}"]
                for number, half in enumerate([*attentions, "feed_forward"], 1):
                    copied[f"{there}.norm{number}.{part}"] = ours[f"{here}.norm_{half}.{part}"]
                for old, new in zip(attentions, ("self_attn", "multihead_attn"), strict=False):
                    three = [ours[f"{here}.{old}.{name}.{part}"] for name in ("query", "key", "value")]
                    copied[f"{there}.{new}.in_proj_{part}"] = torch.cat(three)
                    copied[f"{there}.{new}.out_proj.{part}"] = ours[f"{here}.{old}.out.{part}"]
        if config.pre_norm:
            copied |= {f"{stack}.norm.{part}": ours[f"norm_{stack}.{part}"] for part in ("weight", "bias")}
    theirs.load_state_dict(copied)  # strict: every weight has its place
    return theirs.eval()


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@pytest.mark.parametrize("pre_norm", [False, True])
@torch.no_grad()
def test_logits_equal_torchs_transformer_with_the_same_weights(pre_norm: bool, positions: str):
    model = model_of(tiny(pre_norm=pre_norm, positions=positions))
    (sources, inputs), valid = pairs(3), valid_of(9, 4, 1)
    source, target = (
        embedding(tokens) * math.sqrt(24) + table.table[: tokens.shape[1]]
        for embedding, tokens, table in (
            (model.source_embedding, sources, model.source_positions),
            (model.target_embedding, inputs, model.target_positions),
        )
    )
    later = torch.ones(TARGETS, TARGETS, dtype=torch.bool).triu(1)
    padding = {"src_key_padding_mask": ~valid, "memory_key_padding_mask": ~valid}
    hidden = torchs(model)(source, target, tgt_mask=later, **padding)
    torch.testing.assert_close(model.hidden(sources, valid, inputs), hidden, atol=1e-5, rtol=1e-5)
    expected = hidden @ model.target_embedding.weight.T
    torch.testing.assert_close(model(sources, valid, inputs), expected, atol=1e-5, rtol=1e-5)


def test_sinusoids_are_the_papers():
    table = sinusoids(5000, 6)  # far enough for float32 angles to show
    for position in (0, 1, 17, 4999):
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            assert table[position, 2 * i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-6)


def test_positions_are_the_papers_unless_they_are_to_be_learned():
    fixed, learned = EncDec(tiny()), EncDec(tiny(positions="learned"))
    assert torch.equal(fixed.source_positions(0, 5), sinusoids(5, 24))
    named = {"source_positions.table": (SOURCES, 24), "target_positions.table": (TARGETS, 24)}
    assert {n: tuple(w.shape) for n, w in learned.named_parameters() if "positions" in n} == named
    assert not any("positions" in name for name, _ in fixed.named_parameters())


def test_fixed_positions_stay_in_float32_in_a_model_of_another_type():
    model, (sources, inputs) = model_of().bfloat16(), pairs(1)
    assert torch.equal(model.source_positions(0, SOURCES), sinusoids(SOURCES, 24))
    assert model(sources, None, inputs).dtype == torch.bfloat16
    learned = model_of(tiny(positions="learned")).bfloat16()
    assert learned.source_positions.table.dtype == learned(sources, None, inputs).dtype == torch.bfloat16


def test_positions_of_a_model_that_was_built_without_memory_are_those_of_any_other():
    with torch.device("meta"):
        model = EncDec(tiny())
    assert torch.equal(model.to_empty(device="cpu").target_positions.table, sinusoids(TARGETS, 24))


def test_dropout_is_on_sums_of_embeddings_and_on_what_each_half_adds_and_nowhere_else():
    model, (sources, inputs) = EncDec(tiny(dropout=0.5)), pairs(2)
    dropped: list[float] = []
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda dropout, given, result: dropped.append(dropout.p))
        assert getattr(module, "dropout", 0.0) == 0.0 or isinstance(module.dropout, nn.Dropout)
    model(sources, None, inputs)
    assert dropped == [0.5] * (2 + 2 * 2 + 3 * 2)


def test_weights_are_a_function_of_the_seed():
    first, again, other = (build_model(tiny(), seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_matrices_start_glorot_uniform_and_a_token_is_as_large_as_its_position():
    config = tiny(d_model=96, d_ff=160, vocab_size=300, input_vocab_size=200, positions="learned", context=50)
    model = build_model(config, seed=0)
    for name, module in model.named_modules():
        # Of n draws, the mean square is within five standard errors: its relative one is at most sqrt(2 / n).
        if isinstance(module, nn.Embedding):
            size = (module.weight * math.sqrt(96)).square().mean().item()  # as it is added to a position
            assert size == pytest.approx(1, rel=5 * math.sqrt(2 / module.weight.numel())), name
        elif isinstance(module, nn.Linear) and name != "head":  # which is the target's table
            for matrix in module.weight.chunk({"qkv": 3, "kv": 2}.get(name.split(".")[-1], 1)):
                bound = math.sqrt(6 / sum(matrix.shape))  # a uniform distribution's variance: bound^2 / 3
                assert matrix.abs().max() <= bound, name
                variance = matrix.square().mean().item()
                assert variance == pytest.approx(bound**2 / 3, rel=5 * math.sqrt(2 / matrix.numel())), name
            assert not module.bias.any(), name
    for positions in (model.source_positions, model.target_positions):
        # That of sinusoids, of which each pair's squares add up to 1.
        table = positions.table
        assert table.square().mean().item() == pytest.approx(0.5, rel=5 * math.sqrt(2 / table.numel()))


def test_a_model_can_be_decoded_from_and_names_its_layers_and_width():
    model = EncDec(tiny())
    assert isinstance(model, SourceDecoder)
    assert list(model.layers()) == [*model.encoder, *model.decoder]
    assert len(list(model.layers())) == 4 and model.width == 24 and model.auxiliary_loss() is None


# what is refused


def test_a_longer_source_or_target_than_the_model_knows_is_refused():
    model, (sources, inputs) = EncDec(tiny()), pairs(1)
    with pytest.raises(ValueError, match="10 tokens are more than the 9 positions"):
        model(F.pad(sources, (0, 1)), None, inputs)
    with pytest.raises(ValueError, match="8 tokens are more than the 7 positions"):
        model(sources, None, F.pad(inputs, (0, 1)))


def test_vocabularies_that_are_not_known_or_do_not_fit_one_table_are_refused():
    with pytest.raises(ValueError, match="must be resolved"):
        EncDec(tiny(input_vocab_size=None))
    with pytest.raises(ValueError, match="19 and 31 tokens"):
        EncDec(tiny(share_embeddings=True))


# written token by token


@torch.no_grad()
def test_the_source_is_read_once_and_a_state_holds_two_numbers_a_channel():
    model, (sources, inputs) = model_of(), pairs(3)
    read: list[int] = []
    model.encoder[0].register_forward_hook(lambda *given: read.append(1))
    state = model.new_state(sources, None, 5)
    keys_and_values = model.decoder[0].cross_attention.kv
    keys_and_values.register_forward_hook(lambda *given: read.append(1))  # those of the source are there already
    for token in inputs[:, :5].split(1, 1):
        model.next_logits(token, state)
    assert read == [1] and state.length == 5
    assert state.nbytes == 2 * 2 * 3 * (5 + SOURCES) * 24 * 4  # k and v, layers, B, positions, C, bytes
    with pytest.raises(ValueError, match="6 tokens are more than the cache's 5"):
        model.next_logits(inputs[:, 5:6], state)


# sizes and costs

SHAPES = [
    {"n_layers": 1, "d_model": 16, "n_heads": 1, "context": 8, "input_context": 5},
    {"n_layers": 3, "d_model": 48, "n_heads": 4, "context": 7, "input_context": 32, "d_ff": 100},
    {"n_layers": 2, "d_model": 64, "n_heads": 8, "context": 33, "input_context": None},
    {"n_layers": 6, "d_model": 512, "n_heads": 8, "context": 250, "input_context": 131},
]
VARIANTS = [
    {},
    {"tie_embeddings": False},
    {"pre_norm": True, "positions": "learned"},
    {"share_embeddings": True, "input_vocab_size": 211},
    {"share_embeddings": True, "input_vocab_size": 211, "tie_embeddings": False, "positions": "learned"},
]


def sized(shape: dict, variant: dict) -> EncDecConfig:
    return tiny(**{"d_ff": None, "vocab_size": 211, "input_vocab_size": 97, **shape, **variant})


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"L{shape['n_layers']}d{shape['d_model']}")
def test_training_flops_of_a_pair_equal_what_torch_counts_on_meta_tensors(shape: dict, variant: dict):
    config = sized(shape, variant)
    with torch.device("meta"):  # on CPU tensors the counter gives 0 for attention
        model = EncDec(config)
        sources = torch.zeros(3, config.source_context, dtype=torch.int64)
        inputs = torch.zeros(3, config.context, dtype=torch.int64)
        valid = torch.ones(3, config.source_context, dtype=torch.bool)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(sources, valid, inputs).flatten(0, 1), inputs.flatten()).backward()
    # A token is a position of either sequence, so its share of a pair may be no whole number.
    assert counter.get_total_flops() == round(count_model(config).flops_per_token * config.sequence_tokens) * 3


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_counted_parameters_are_the_models(variant: dict):
    config = sized(SHAPES[1], variant)
    with torch.device("meta"):
        model = EncDec(config)
    count = count_model(config)
    assert sum(weight.numel() for weight in model.parameters()) == count.n_params == count.n_params_active
    tables = {id(weight): weight.numel() for name, weight in model.named_parameters(remove_duplicate=False)
              if "embedding" in name or "positions" in name}  # fmt: skip
    assert sum(tables.values()) == count.n_params_embedding
    matrices = [module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear)]
    assert sum(matrices) == count.n_params_matmul


# Parameters by table 3 of the paper, in millions, for its shared vocabulary of about 37,000 tokens: met within 3 %.
@pytest.mark.parametrize(("name", "published"), [("transformer_base", 65e6), ("transformer_big", 213e6)])
def test_the_papers_sizes_have_its_parameters(name: str, published: float):
    words = [f"model={name}", "model.vocab_size=37000", "model.input_vocab_size=37000"]
    count = count_model(Composer(paths.search_roots(), words=words).config({}).model)
    assert count.n_params == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize(("name", "millions"), [("encdec_nano", 0.2), ("encdec_tiny", 1.9)])
def test_shipped_sizes_have_the_parameters_that_they_say(name: str, millions: float):
    words = [f"model={name}", "model.vocab_size=500", "model.input_vocab_size=500"]
    count = count_model(Composer(paths.search_roots(), words=words).config({}).model)
    assert (count.n_params - count.n_params_embedding) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("num_layers", "n_layers"), ("num_heads", "n_heads"), ("dff", "d_ff"), ("rate", "dropout"),
     ("dropout_rate", "dropout"), ("input_positions", "input_context"), ("target_vocab_size", "vocab_size")],
)  # fmt: skip
def test_other_names_of_the_papers_quantities_are_answered_with_ours(theirs: str, ours: str):
    from lmexp.errors import UserError

    with pytest.raises(UserError, match=rf"model\.{theirs} is not a key.*set by model\.{ours}\."):
        Composer(paths.search_roots(), words=["model=encdec_nano", f"model.{theirs}=2"]).config({})
