"""Activation checkpointing: the same training, bit for bit, and only what is cheap is computed again."""

from typing import Any

import pytest
import torch

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.trainer import Recompute
from lmexp.errors import UserError
from lmexp.models.build import build_model
from lmexp.models.moe import Experts
from lmexp.train.recompute import policy, recompute_layers

FAMILIES = {
    "gpt": ("model=gpt_nano", "fp32"),
    "llama": ("model=llama_nano", "bf16"),
    "moe": ("model=moe_nano", "fp32"),
    "bert": ("model=bert_nano task=masked_lm", "bf16"),
    "encdec": ("model=encdec_nano task=seq2seq data=reverse model.input_vocab_size=61", "fp32"),
    "mingru": ("model=mingru_nano", "bf16"),
}


def train_once(words: str, precision: str, how: Recompute, compiles: bool = False) -> list[torch.Tensor]:
    """Return the loss and the gradients of one batch, with dropout."""
    sizes = ["model.vocab_size=61", "model.context=16", "model.n_layers=2", "model.dropout=0.1"]
    config = Composer(paths.search_roots(), words=[*words.split(), *sizes]).config({})
    model = build_model(config.model, seed=0).train()
    recompute_layers(model, how)
    for layer in model.layers() if compiles else []:
        layer.compile(backend="aot_eager", dynamic=False)
    tokens = torch.randint(0, 61, (2, 16), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = model(*([tokens, None, tokens] if config.model.family == "encdec" else [tokens]))
        loss = logits.float().logsumexp(-1).sum()
        auxiliary = model.auxiliary_loss()
    loss = loss if auxiliary is None else loss + auxiliary
    loss.backward()
    kept = [layer for layer in model.modules() if isinstance(layer, Experts) and layer.routed is not None]
    assert not kept, "the routing of what is computed again would hold on to its activations"
    return [loss.detach(), *(weight.grad for weight in model.parameters() if weight.grad is not None)]


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_stay_the_same_bit_for_bit(family: str):
    words, precision = FAMILIES[family]
    expected = train_once(words, precision, "none")
    for how in ("selective", "full"):
        made = train_once(words, precision, how)
        assert len(made) == len(expected) and all(map(torch.equal, made, expected)), how


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt", "moe"])
def test_so_they_do_where_layers_are_compiled(family: str):
    words, precision = FAMILIES[family]
    expected = train_once(words, precision, "none")
    for how in ("selective", "full"):
        torch.compiler.reset()
        made = train_once(words, precision, how, compiles=True)
        for value, other in zip(made, expected, strict=True):
            assert torch.allclose(value, other, rtol=1e-5, atol=1e-6), how
    torch.compiler.reset()


def test_matmuls_and_attention_are_kept_and_the_rest_is_not():
    aten = torch.ops.aten
    decide = [policy(None, op, torch.ones(2)).name for op in (aten.addmm.default, aten.gelu.default)]
    assert decide == ["MUST_SAVE", "PREFER_RECOMPUTE"]
    assert policy(None, aten._scaled_dot_product_flash_attention.default, torch.ones(2)).name == "MUST_SAVE"


def test_what_draws_random_numbers_is_kept_on_a_gpu_where_attention_is_not_drawn_again():
    on_cpu, elsewhere = torch.ones(2), torch.ones(2, device="meta")
    dropout, in_place = torch.ops.aten.native_dropout.default, torch.ops.aten.bernoulli_.float
    assert policy(None, dropout, elsewhere, 0.1, True).name == "MUST_SAVE"
    for operation in (dropout, in_place):  # all of them are drawn again on a CPU
        assert policy(None, operation, on_cpu, 0.1).name == "PREFER_RECOMPUTE"
    with pytest.raises(UserError, match="use full"):
        policy(None, in_place, elsewhere, 0.1)


def test_a_model_without_layers_is_refused():
    class Flat(torch.nn.Module):
        def layers(self) -> list[Any]:
            return []

    recompute_layers(Flat(), "none")
    with pytest.raises(UserError, match=r"Flat\.layers\(\) names none"):
        recompute_layers(Flat(), "full")
