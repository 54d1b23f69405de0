"""The optimizer that a config names: Muon with AdamW beside it, and one from outside."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from lmexp.config.checks import check_config
from lmexp.config.optimizers import MuonConfig, OtherOptim
from lmexp.config.schema import RunConfig
from lmexp.config.trust import trusting
from lmexp.cost.memory import estimate_memory
from lmexp.errors import UserError
from lmexp.models.base import LanguageModel
from lmexp.models.build import build_model
from lmexp.tasks.optim import build_optimizer, set_lr

MODULE = """
import torch

class Plain(torch.optim.Optimizer):
    def __init__(self, params, lr): super().__init__(params, {"lr": lr})

class HidesLr(torch.optim.Optimizer):
    def __init__(self, params, lr): super().__init__(params, {"rate": lr})
"""


def test_an_optimizer_whose_rate_no_schedule_can_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "odd_optimizers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    weights = list(nn.Linear(2, 2).parameters())
    with trusting(["odd_optimizers"]):
        assert build_optimizer(weights, OtherOptim(target="odd_optimizers.Plain", lr=1e-3), False).param_groups
        with pytest.raises(UserError, match=r"odd_optimizers.HidesLr has no 'lr' in its param_groups"):
            build_optimizer(weights, OtherOptim(target="odd_optimizers.HidesLr", lr=1e-3), False)


MUON = MuonConfig(target="torch.optim.Muon", lr=0.02, adamw_lr=3e-3, weight_decay=0.1)
Config = Callable[..., RunConfig]


def gpt(config: Config) -> LanguageModel:
    model = build_model(config("model.d_model=16", "model.context=8", "model.vocab_size=11").model, seed=0)
    assert isinstance(model, LanguageModel)
    return model


def muon_of(model: LanguageModel, optim: MuonConfig = MUON) -> Optimizer:
    return build_optimizer(model.parameters(), optim, True, model.layers())


def backward(model: LanguageModel, step: int) -> None:
    tokens = torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(step))
    model.zero_grad()
    model(tokens).logsumexp(-1).square().mean().backward()


def test_muon_steps_as_torchs_own_and_takes_queries_keys_and_values_one_by_one(config: Config):
    ours, theirs = gpt(config), gpt(config)
    optimizer = muon_of(ours)
    whole = [weight for block in theirs.layers() for weight in block.parameters() if weight.ndim == 2]
    rest = [weight for weight in theirs.parameters() if all(weight is not matrix for matrix in whole)]
    parts = {weight: weight.chunk(3) if weight.shape == (48, 16) else (weight,) for weight in whole}
    copies = {part: nn.Parameter(part.detach().clone()) for chunks in parts.values() for part in chunks}
    assert len(copies) == 2 * 6  # layers of query, key, value, output, and two of the feed-forward layer
    muon = torch.optim.Muon(copies.values(), weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": [weight for weight in rest if weight.ndim == dims], "weight_decay": decay}
              for dims, decay in ((2, 0.1), (1, 0.0))]  # fmt: skip
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
    for step in range(3):
        backward(ours, step)
        backward(theirs, step)
        set_lr(optimizer, 0.02 / (step + 1))  # as a schedule does
        set_lr(muon, 0.02 / (step + 1))
        set_lr(adamw, 0.02 / (step + 1) * (3e-3 / 0.02))
        optimizer.step()
        for weight, chunks in parts.items():
            for part, gradient in zip(chunks, weight.grad.chunk(len(chunks)), strict=True):  # type: ignore[union-attr]
                copies[part].grad = gradient
        muon.step()
        adamw.step()
        with torch.no_grad():
            for part, copy in copies.items():
                part.data.copy_(copy)
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_muon_goes_on_from_a_checkpoint_exactly_and_skips_a_step_that_overflowed(config: Config):
    whole, stopped = gpt(config), gpt(config)
    first, second = muon_of(whole), muon_of(stopped)
    for step in range(4):
        backward(whole, step)
        first.step()
    for step in range(4):
        if step == 2:
            state = second.state_dict()
            second = muon_of(stopped)
            second.load_state_dict(state)
        backward(stopped, step)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for inf in (True, False):  # with loss scaling, as fp16 has it
            scaler.scale(torch.ones(()))
            before = [weight.detach().clone() for weight in stopped.parameters()]
            for weight in stopped.parameters():
                assert weight.grad is not None
                weight.grad = weight.grad * scaler.get_scale() + (torch.inf if inf else 0)
            scaler.step(second)
            scaler.update()
            if inf:
                assert all(torch.equal(a, b) for a, b in zip(before, stopped.parameters(), strict=True))
                backward(stopped, step)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), stopped.parameters(), strict=True))


@pytest.mark.parametrize("model", ["gpt_nano", "llama_nano", "moe_nano"])
def test_the_planned_memory_of_muon_is_that_of_its_state(config: Config, model: str):
    settings = config(f"model={model}", "model.vocab_size=11", "model.n_heads=4", "optim=muon")
    built = build_model(settings.model, 0)
    optimizer = muon_of(built, settings.optim)
    for weight in built.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    state = [value for values in optimizer.state.values() for value in values.values() if value.ndim]
    assert estimate_memory(settings).optimizer == sum(value.nbytes for value in state)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=lstm_nano"], "optim=muon trains the matrices of a Transformer's blocks"),
        (["trainer.strategy=fsdp", "trainer.devices=2"], "each process has a part of them: use trainer.strategy=ddp"),
    ],
)
def test_what_muon_cannot_train_is_refused(config: Config, words: list[str], said: str):
    with pytest.raises(UserError, match=said):
        check_config(config("optim=muon", *words))
