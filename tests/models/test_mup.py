"""muP: the rules of its published table, a coordinate check, the standard model at the base width, export."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmexp.config.checks import check_config
from lmexp.config.models.base import TransformerSection
from lmexp.config.models.gpt import GPTConfig
from lmexp.config.models.llama import LlamaConfig
from lmexp.config.optimizers import AdamConfig, MuonConfig
from lmexp.config.schema import RunConfig
from lmexp.cost.flops import count_model
from lmexp.errors import UserError
from lmexp.models.build import build_model
from lmexp.models.exchange import gpt, llama
from lmexp.models.gpt import GPT
from lmexp.models.llama import Llama
from lmexp.tasks.optim import build_optimizer, set_lr

BASE = {"mup_base_width": 64, "mup_base_head_size": 16}
FAMILIES: dict[str, tuple[type[TransformerSection], str]] = {
    "gpt": (GPTConfig, "lmexp.models.gpt.GPT"),
    "llama": (LlamaConfig, "lmexp.models.llama.Llama"),
}
ADAMW = AdamConfig(target="torch.optim.AdamW", lr=4e-3, weight_decay=0.1)
MUON = MuonConfig(target="torch.optim.Muon", lr=2e-2, weight_decay=0.1)
TEXT = torch.randint(64, (8, 17), generator=torch.Generator().manual_seed(1))


def built(family: str, width: int = 64, **changes: object) -> GPT | Llama:
    """A model of two layers and four heads; with `**BASE` it is the base model of muP at width 64."""
    section, target = FAMILIES[family]
    sizes = {"name": "t", "n_layers": 2, "d_model": width, "n_heads": 4, "context": 16, "vocab_size": 64}
    model = build_model(section.model_validate({"_target_": target, **sizes, **changes}), seed=0)
    assert isinstance(model, GPT | Llama)
    return model


def train(model: GPT | Llama, optim: AdamConfig | MuonConfig, steps: int) -> Tensor:
    """Train on one batch, and return the logits."""
    optimizer = build_optimizer(model.parameters(), optim, True, model.layers(), model.config.width_multiple)
    set_lr(optimizer, optim.peak_lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(TEXT[:, :-1]).flatten(0, 1), TEXT[:, 1:].flatten()).backward()
        optimizer.step()
    with torch.no_grad():
        return model(TEXT[:, :-1])


@pytest.mark.parametrize("optim", [ADAMW, MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_base_width_it_is_the_standard_model_bit_for_bit(family: str, optim: AdamConfig | MuonConfig):
    standard, mup = built(family), built(family, **BASE)
    assert torch.equal(train(standard, optim, 3), train(mup, optim, 3))
    assert all(torch.equal(a, b) for a, b in zip(standard.parameters(), mup.parameters(), strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_rates_and_multipliers_are_those_of_table_8(family: str):
    """Yang et al. 2022: with four times the base width, by the factor for each kind of weight."""
    standard, mup = built(family, 256, tie_embeddings=False), built(family, 256, tie_embeddings=False, **BASE)
    matrices = {name for name, weight in mup.blocks.named_parameters(prefix="blocks") if weight.ndim == 2}
    for (name, drawn), weight in zip(standard.named_parameters(), mup.parameters(), strict=True):
        torch.testing.assert_close(weight, drawn / 2 if name in matrices else drawn, rtol=1e-6, atol=0)
    optimizer = build_optimizer(mup.parameters(), ADAMW, False, mup.layers(), mup.config.width_multiple)
    set_lr(optimizer, 0.4)
    names = {weight: name for name, weight in mup.named_parameters()}
    for group in optimizer.param_groups:
        for weight in group["params"]:
            assert group["lr"] == (0.1 if names[weight] in matrices else 0.4)
            # What a step takes off a matrix does not depend on the width.
            assert group["lr"] * group["weight_decay"] == pytest.approx(0.4 * 0.1 if weight.ndim == 2 else 0)
    assert mup.blocks[0].attention.scale == 16**0.5 / 64  # heads are four times as wide, so d_head^-1 and not ^-1/2
    mup.load_state_dict(standard.state_dict())
    for block in mup.blocks:
        block.attention.scale = None
    with torch.no_grad():
        logits = mup(TEXT[:, :-1])
        torch.testing.assert_close(4 * logits, standard(TEXT[:, :-1]))
        # What a loss multiplies piece by piece has the multiplier too.
        assert torch.equal(mup.head(mup(TEXT[:, :-1], features_only=True)), logits)


def growth(family: str, optim: AdamConfig | MuonConfig, **base: int) -> dict[str, float]:
    """Return by how much activations, after five steps, are larger in a model that is four times as wide."""
    sizes: dict[int, dict[str, float]] = {}
    for width in (64, 256):
        model = built(family, width, **base)
        train(model, optim, 5)
        sizes[width] = measured = {}

        def keep(name: str, into: dict[str, float] = measured) -> Callable[[nn.Module, object, Tensor], None]:
            return lambda module, inputs, output: into.update({name: float(output.abs().mean())})

        for index, block in enumerate(model.blocks):
            block.attention.register_forward_hook(keep(f"attention {index}"))
            block.register_forward_hook(keep(f"stream {index}"))
        model.register_forward_hook(keep("logits"))
        with torch.no_grad():
            model(TEXT[:, :-1])
    return {name: sizes[256][name] / size for name, size in sizes[64].items()}


@pytest.mark.parametrize(
    ("family", "optim", "change"), [("gpt", ADAMW, 1.5), ("llama", ADAMW, 1.5), ("gpt", MUON, 1.3)]
)
def test_coordinates_keep_their_size_as_the_width_grows_and_without_mup_they_grow(
    family: str, optim: AdamConfig | MuonConfig, change: float
):
    """The coordinate check of Yang et al. 2022, appendix D.1."""
    with_mup, without = growth(family, optim, **BASE), growth(family, optim)
    assert len(with_mup) == 5
    assert all(1 / change < ratio < change for ratio in with_mup.values()), with_mup
    assert without["logits"] > 1.6 and all(without[f"attention {index}"] > 2 for index in range(2)), without


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt", {}),
        ("gpt", {"bias": False, "tie_embeddings": False}),
        ("llama", {"n_kv_heads": 2}),
        ("llama", {"qk_norm": True, "tie_embeddings": True}),
    ],
)
def test_an_exported_model_has_the_multipliers_in_its_weights(family: str, changes: dict[str, object]):
    model = built(family, 256, **changes, **BASE)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
        before = model(TEXT[:, :-1])
        if family == "gpt":
            config, weights = gpt.from_hf(*gpt.to_hf(model))
        else:
            config, weights = llama.from_hf(*llama.to_hf(model))
        plain = build_model(config, 0)
        plain.load_state_dict(weights)
        torch.testing.assert_close(plain(TEXT[:, :-1]), before, rtol=1e-4, atol=1e-5)
        assert config.width_multiple == 1 and torch.equal(model(TEXT[:, :-1]), before)


def test_mup_changes_no_count(config: Callable[..., RunConfig]):
    words = ("model.d_model=256", "model.vocab_size=64")
    assert count_model(config(*words, "model.mup_base_width=64").model) == count_model(config(*words).model)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optim=sgd"], r"model.mup_base_width needs optim=adamw, adam or muon"),
        (["optim=adam", "optim.weight_decay=0.1"], "use optim=adamw, or optim.weight_decay=0"),
        (["model.mup_base_width=null", "model.mup_base_head_size=16"], "set model.mup_base_width too"),
    ],
)
def test_what_mup_has_no_rule_for_is_refused(config: Callable[..., RunConfig], words: list[str], said: str):
    with pytest.raises(UserError, match=said):
        check_config(config("model.mup_base_width=64", *words))
