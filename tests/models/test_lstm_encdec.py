"""The recurrent encoder-decoder: equal to torch's LSTMs with the paper's attention by hand, blind to padding."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.models.lstm_encdec import LSTMEncDecConfig
from lmexp.cost.flops import count_model
from lmexp.models.build import build_model
from lmexp.models.decoding import SourceDecoder
from lmexp.models.lstm_encdec import LSTMEncDec
from tests.models.test_encdec import SOURCES, TARGETS, pairs, valid_of


def tiny(**changes: object) -> LSTMEncDecConfig:
    values = {"name": "t", "n_layers": 2, "d_model": 24, "dropout": 0.0}
    values |= {"context": TARGETS, "input_context": SOURCES, "vocab_size": 31, "input_vocab_size": 19}
    return LSTMEncDecConfig.model_validate({"_target_": "lmexp.models.lstm_encdec.LSTMEncDec", **values, **changes})


def model_of(config: LSTMEncDecConfig | None = None, seed: int = 0) -> LSTMEncDec:
    """A model with weights large enough for gates to open and shut, and for a swap of any two to show."""
    model = build_model(config or tiny(), seed).eval()
    assert isinstance(model, LSTMEncDec)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model


def stack_of(model: LSTMEncDec, name: str) -> nn.LSTM:
    """torch.nn.LSTM with the weights of one stack."""
    theirs = nn.LSTM(24, 24, num_layers=2, batch_first=True)
    prefix = f"{name}."
    theirs.load_state_dict(
        {key.removeprefix(prefix): weight for key, weight in model.state_dict().items() if key.startswith(prefix)}
    )
    return theirs


@pytest.mark.parametrize("tie", [True, False])
@torch.no_grad()
def test_logits_are_the_papers_equations_one_pair_and_one_position_at_a_time(tie: bool):
    model, (sources, inputs), lengths = model_of(tiny(tie_embeddings=tie)), pairs(3), (9, 4, 1)
    found, weights = model(sources, valid_of(*lengths), inputs), model.state_dict()
    encoder, decoder = stack_of(model, "encoder"), stack_of(model, "decoder")
    for row, length in enumerate(lengths):
        memory = encoder(weights["source_embedding.weight"][sources[row, :length]])[0]  # (S, C)
        first = torch.tanh(weights["start.weight"] @ memory[-1] + weights["start.bias"])  # (L C)
        state = first.view(2, 24), torch.zeros(2, 24)
        for position, token in enumerate(inputs[row]):
            output, state = decoder(weights["target_embedding.weight"][token][None], state)
            scores = [output[0] @ weights["key.weight"] @ memory[s] for s in range(length)]
            shares = torch.stack(scores).softmax(0)
            context = sum(shares[s] * memory[s] for s in range(length))
            mixed = torch.tanh(weights["mix.weight"] @ torch.cat([context, output[0]]))
            expected = weights["target_embedding.weight" if tie else "head.weight"] @ mixed
            torch.testing.assert_close(found[row, position], expected, atol=1e-5, rtol=1e-5)


def test_it_can_be_decoded_from_and_names_its_stacks_and_width():
    model = model_of()
    assert isinstance(model, SourceDecoder)
    assert list(model.layers()) == [model.encoder, model.decoder]
    assert model.width == 24 and model.auxiliary_loss() is None


def test_weights_are_a_function_of_the_seed_and_forget_gates_start_open():
    first, again, other = (build_model(tiny(), seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["mix.weight"], other["mix.weight"])
    for stack in ("encoder", "decoder"):
        for layer in (0, 1):
            gates = first[f"{stack}.bias_ih_l{layer}"].view(4, 24)  # input, forget, cell, output
            assert torch.equal(gates, torch.tensor([0.0, 1.0, 0.0, 0.0])[:, None].expand(4, 24))
    assert not first["start.bias"].any()


def test_dropout_is_before_between_and_after_layers_and_only_in_training():
    plain, dropping = model_of(), model_of(tiny(dropout=0.5))
    (sources, inputs) = pairs(2)
    assert torch.equal(dropping(sources, None, inputs), plain(sources, None, inputs))
    assert dropping.encoder.dropout == dropping.decoder.dropout == 0.5
    seen: list[float] = []
    dropping.dropout.register_forward_hook(lambda module, given, result: seen.append(module.p))
    dropping.train()(sources, None, inputs)
    assert seen == [0.5] * 3  # both embeddings, and what the head reads


# what is refused


def test_a_longer_source_or_target_than_the_models_is_refused():
    model, (sources, inputs) = LSTMEncDec(tiny()), pairs(1)
    with pytest.raises(ValueError, match="source of 10 tokens is longer than the model's 9"):
        model(F.pad(sources, (0, 1)), None, inputs)
    with pytest.raises(ValueError, match="target of 8 tokens is longer than the model's 7"):
        model(sources, None, F.pad(inputs, (0, 1)))


# written token by token


@torch.no_grad()
def test_the_source_is_read_once_and_the_state_does_not_grow_with_the_target():
    model, (sources, inputs) = model_of(), pairs(3)
    read: list[int] = []
    model.encoder.register_forward_hook(lambda *given: read.append(1))
    state = model.new_state(sources, None)
    before = state.nbytes
    for token in inputs.split(1, 1):
        model.next_logits(token, state)
    assert read == [1] and state.length == TARGETS
    # Two vectors a layer of the decoder; a key and an output for each position of the source; 4 bytes a number.
    assert before == state.nbytes == 4 * 3 * 24 * (2 * 2 + 2 * SOURCES)
    with pytest.raises(ValueError, match="target of 8 tokens"):
        model.next_logits(inputs[:, :1], state)


# sizes and costs

SHAPES = [
    {"n_layers": 1, "d_model": 16, "context": 8, "input_context": 5},
    {"n_layers": 3, "d_model": 48, "context": 7, "input_context": 12},
    {"n_layers": 2, "d_model": 24, "context": 9, "input_context": None},
]
VARIANTS = [{}, {"tie_embeddings": False}, {"share_embeddings": True, "input_vocab_size": 31}]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"L{shape['n_layers']}d{shape['d_model']}")
def test_training_flops_of_a_pair_equal_what_torch_counts_on_meta_tensors(shape: dict, variant: dict):
    config = tiny(**shape, **variant)
    with torch.device("meta"):  # on CPU tensors the counter does not see into an LSTM
        model = LSTMEncDec(config)
        sources = torch.zeros(3, config.source_context, dtype=torch.int64)
        inputs = torch.zeros(3, config.context, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(sources, None, inputs).flatten(0, 1), inputs.flatten()).backward()
    # A token is a position of either sequence, so its share of a pair may be no whole number.
    assert counter.get_total_flops() == round(count_model(config).flops_per_token * config.sequence_tokens) * 3


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_counted_parameters_are_the_models(variant: dict):
    config = tiny(n_layers=3, **variant)
    model, count = build_model(config, 0), count_model(config)
    assert sum(weight.numel() for weight in model.parameters()) == count.n_params == count.n_params_active
    tables = {id(weight): weight.numel() for name, weight in model.named_parameters(remove_duplicate=False)
              if "embedding" in name}  # fmt: skip
    assert sum(tables.values()) == count.n_params_embedding
    matrices = {name: w.numel() for name, w in model.named_parameters(remove_duplicate=False)
                if w.ndim == 2 and "embedding" not in name}  # fmt: skip
    assert sum(matrices.values()) == count.n_params_matmul


def test_the_nano_sizes_of_both_encoder_decoders_have_about_as_many_parameters():
    sizes = []
    for name in ("encdec_nano", "lstm_encdec_nano"):
        words = [f"model={name}", "model.vocab_size=500", "model.input_vocab_size=500"]
        count = count_model(Composer(paths.search_roots(), words=words).config({}).model)
        sizes.append(count.n_params - count.n_params_embedding)
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_it_predicts_no_labels():
    from lmexp.config.tasks.classify import ClassifyConfig

    task = ClassifyConfig.model_validate({"_target_": "lmexp.tasks.classify.Classify", "labels": ["a", "b"]})
    with pytest.raises(ValueError, match="predicts tokens, not labels"):
        count_model(tiny(), task)
