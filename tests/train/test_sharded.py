"""Weights shared by several processes: the run of one process, by real processes that talk by gloo."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from safetensors.torch import load_file
from torch.distributed.fsdp import MixedPrecisionPolicy

from lmexp.config.schema import RunConfig
from lmexp.data.loading import ValidationBatches
from lmexp.data.store import Store, prepare
from lmexp.data.windows import Windows
from lmexp.models.build import build_model
from lmexp.models.sampling import sample
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import STORES, RunDir
from lmexp.tasks import base
from lmexp.tasks.causal_lm import CausalLM
from lmexp.train.checkpoint import last_checkpoint, load_final
from lmexp.train.worker import main
from tests.train.test_ranks import column, shared_out
from tests.train.together import train_together

FSDP = ("trainer.strategy=fsdp", "trainer.devices=2", "trainer.accelerator=cpu")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
Train = Callable[..., RunDir]


@pytest.fixture(scope="module")
def train(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train a run with these overrides, on two processes that share its weights or on one; the same only once."""
    done: dict[tuple[str, ...], RunDir] = {}
    torch.set_num_threads(1)

    def run(*words: str) -> RunDir:
        if words not in done:
            made = make(small, words, tmp_path_factory.mktemp("sharded"))
            if "trainer.devices=2" in words:
                train_together(made.path)
            else:
                assert main(made.path) == 0
            done[words] = made
        return done[words]

    return run


def make(small: list[str], words: tuple[str, ...], folder: Path) -> RunDir:
    (planned,) = resolve_sweep(None, [*small, "trainer.log_every=1", *words], folder / "outputs").runs
    return RunDir.create(planned.run.path, planned.config)


def weights(run: RunDir) -> dict[str, torch.Tensor]:
    return load_file(run.final / "model.safetensors")


def store_of(run: RunDir) -> Store:
    config = run.read_config()
    return prepare(config.data, config.tokenizer, run.path.parent.parent / STORES)


ACCUMULATING = ("batch.micro=2",)
"""Of the 8 sequences of a step each of two processes has two micro-batches."""


@pytest.mark.slow
def test_the_run_is_that_of_one_process(train: Train):
    one, two = train(*ACCUMULATING), train(*ACCUMULATING, *FSDP)
    for name, points in (("train_loss", 20), ("grad_norm", 20), ("loss", 4), ("accuracy", 4)):
        expected = column(one.path, name)
        assert len(expected) == points
        assert column(two.path, name) == pytest.approx(expected, rel=1e-6), name
    same, other = weights(one), weights(two)
    assert list(same) == list(other)
    for name, weight in same.items():  # Adam divides by gradients that may be all but 0, and by their rounding
        assert torch.allclose(weight, other[name], rtol=0, atol=2e-6), name
    first, second = one.read_record()[0], two.read_record()[0]
    assert (first["world_size"], second["world_size"]) == (1, 2)
    for name in ("dtype_weights", "dtype_grads", "dtype_optimizer", "dtype_compute", "n_params", "tokens", "steps"):
        assert first[name] == second[name], name


@pytest.mark.parametrize(
    ("words", "is_narrow"),
    [
        (("precision=bf16",), True),
        (("precision=fp32",), False),
        (("precision=bf16_true",), False),  # its weights are bf16 already
        (("precision=bf16", "model=moe_nano"), False),  # the router is not to be rounded
    ],
)
def test_layers_are_gathered_in_bf16_where_they_are_multiplied_in_it(
    words: tuple[str, ...], is_narrow: bool, config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
):
    policies: list[MixedPrecisionPolicy | None] = []
    monkeypatch.setattr(base, "fully_shard", lambda module, mesh, mp_policy=None: policies.append(mp_policy))
    settings = config(*words, "model.vocab_size=257", *FSDP)
    task, strategy = CausalLM(build_model(settings.model, 0), settings), ModelParallelStrategy()
    strategy._device_mesh = cast(Any, {"data_parallel": None})
    task._trainer = cast(Any, SimpleNamespace(strategy=strategy))
    task.configure_model()
    *layers, whole = policies
    narrow = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    assert whole is None and layers == [narrow if is_narrow else MixedPrecisionPolicy()] * settings.model.n_layers


@pytest.mark.slow
def test_processes_may_have_unequally_many_batches_to_score(train: Train):
    run = train(*ACCUMULATING, *FSDP)
    first, second = (len(list(ValidationBatches(Windows(store_of(run), 32, 0), 2, rank, 2))) for rank in range(2))
    assert first != second and run.read_record()  # its loss is compared above


@pytest.mark.slow
def test_the_final_model_is_whole(train: Train):
    run = train(*ACCUMULATING, *FSDP)
    loaded = load_final(run)
    config, model, tokenizer = loaded.config, loaded.model, loaded.tokenizer
    store = store_of(run)
    quality = CausalLM(model, config).evaluate(ValidationBatches(Windows(store, 32, 0), 7), store.bytes("validation"))
    assert quality.loss == pytest.approx(run.read_record()[0]["loss"], abs=1e-6)
    assert len(list(sample(model, tokenizer.encode("the cat").tolist(), 8, config.model.context))) == 8
    assert not last_checkpoint(run).exists()


WITHIN_BF16 = 2e-4
"""Rounding to bf16 moves a value by up to 2**-9 of it, and so a logit, and the loss of a token. A step's loss is a mean
over 256 tokens with errors of either sign: 2**-9 / sqrt(256) is 1.2e-4."""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "bf16_true"])
def test_in_bf16_it_is_the_run_of_one_process_too(train: Train, precision: str):
    one, two = train(f"precision={precision}"), train(f"precision={precision}", *FSDP)
    assert column(two.path, "train_loss") == pytest.approx(column(one.path, "train_loss"), rel=WITHIN_BF16)
    assert column(two.path, "loss") == pytest.approx(column(one.path, "loss"), rel=WITHIN_BF16)
    first, second = one.read_record()[0], two.read_record()[0]
    assert second["dtype_compute"] == "bfloat16"
    for name in ("dtype_weights", "dtype_grads", "dtype_optimizer"):
        assert first[name] == second[name]
    assert {name: weight.dtype for name, weight in weights(one).items()} == {
        name: weight.dtype for name, weight in weights(two).items()
    }


KILLED_AFTER_ITS_FIRST_CHECKPOINT = """
import os, runpy, signal
from lmexp.train.saving import Saving
saved = Saving.on_step_end
def save_then_die_three_steps_later(self, trainer, task):
    saved(self, trainer, task)
    if self.progress.steps == 8:
        os.kill(os.getpid(), signal.SIGKILL)
Saving.on_step_end = save_then_die_three_steps_later
runpy.run_module("lmexp.worker", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_stopping_and_resuming_changes_nothing(train: Train, small: list[str], tmp_path: Path):
    words = ("model.dropout=0.1", "model.tie_embeddings=false", *FSDP)
    undisturbed, stopped = train(*words), make(small, words, tmp_path)
    (tmp_path / "killed.py").write_text(KILLED_AFTER_ITS_FIRST_CHECKPOINT)
    command = [*TORCHRUN, str(tmp_path / "killed.py"), str(stopped.path)]
    assert subprocess.run(command, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode != 0
    assert not stopped.read_record()
    kept = torch.load(last_checkpoint(stopped), weights_only=True)
    shapes = {f"model.{name}": weight.shape for name, weight in weights(undisturbed).items()}
    assert {name: weight.shape for name, weight in kept["state_dict"].items()} == shapes
    (state,) = (optimizer["state"].values() for optimizer in kept["optimizer_states"])
    assert sorted(weight["exp_avg"].shape for weight in state) == sorted(shapes.values())

    train_together(stopped.path)
    assert stopped.read_state().attempts == 2
    for name in ("train_loss", "grad_norm", "loss"):
        assert column(stopped.path, name) == column(undisturbed.path, name)
    same, other = weights(undisturbed), weights(stopped)
    assert all(torch.equal(same[name], other[name]) for name in same)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "strategy"), [("full", "fsdp"), ("selective", "ddp")])
def test_activation_checkpointing_changes_nothing(train: Train, how: str, strategy: str):
    words = ("model.dropout=0.1", "model.tie_embeddings=false", f"trainer.strategy={strategy}", *FSDP[1:])
    plain, again = train(*words), train(*words, f"trainer.activation_checkpointing={how}")
    for name in ("train_loss", "grad_norm", "loss"):
        assert column(again.path, name) == column(plain.path, name)
    same, other = weights(plain), weights(again)
    assert all(torch.equal(same[name], other[name]) for name in same)
    first, second = plain.read_record()[0], again.read_record()[0]
    assert first["train_flops"] == second["train_flops"]
    is_more = second["flops_per_token_hardware"] > first["flops_per_token_hardware"]
    assert is_more == (how == "full")


@pytest.mark.slow
def test_each_token_of_a_step_weighs_the_same(small: list[str], tmp_path: Path):
    expected = shared_out({1: (12,)}, small, tmp_path / "one")[1, 12]
    for way, place in shared_out({3: (1, 4)}, [*small, "trainer.strategy=fsdp"], tmp_path / "shared").items():
        for name in ("loss", "accuracy", "train_loss", "grad_norm"):
            assert column(place, name) == pytest.approx(column(expected, name), rel=1e-6, abs=1e-9), (way, name)
        for name, weight in torch.load(place / "weights.pt").items():
            assert torch.allclose(weight, torch.load(expected / "weights.pt")[name], rtol=0, atol=1e-6), (way, name)
