"""Lightning's Trainer for each precision, on a simulated GPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.plugins.io import torch_io
from pytorch_lightning.strategies import DDPStrategy

from lmexp.config.schema import RunConfig
from lmexp.runs.directory import RunDir
from lmexp.train.trainer import build_trainer

PRESETS = {
    "fp32": ("32-true", torch.float32, False),
    "tf32": ("32-true", torch.float32, False),
    "bf16": ("bf16-mixed", torch.bfloat16, False),
    "bf16_true": ("bf16-true", torch.bfloat16, False),
    "fp16": ("16-mixed", torch.float16, True),
    "fp8": ("bf16-mixed", torch.bfloat16, False),
}
"""By preset: Lightning's precision, the type in which autocast or the weights multiply, whether losses are scaled."""


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch say that there is a GPU; nothing runs on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_becomes_the_same_training_on_a_gpu(
    preset: str, config: Callable[..., RunConfig], one_gpu: None, tmp_path: Path
):
    words = [f"precision={preset}", "trainer.accelerator=gpu", "batch.micro=2"]
    trainer = build_trainer(config(*words), RunDir(tmp_path))
    lightning, multiplied_in, is_scaled = PRESETS[preset]
    plugin: Any = trainer.precision_plugin
    assert trainer.strategy.root_device == torch.device("cuda", 0) and trainer.world_size == 1
    assert plugin.precision == lightning
    scaler = getattr(plugin, "scaler", None)
    assert (scaler is not None) == is_scaled
    if is_scaled:
        assert scaler.is_enabled() and scaler._device == "cuda"
    with plugin.forward_context():
        autocast = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        weights = torch.get_default_dtype()
    assert (autocast or weights) == multiplied_in
    assert (autocast is not None) == lightning.endswith("mixed")
    assert trainer.accumulate_grad_batches == 4, "8 sequences of a step, two at a time"
    assert trainer.max_epochs == -1 and trainer.logger is None and trainer.checkpoint_callback is None


def test_gradients_of_several_processes_lie_in_the_buckets_that_are_added_up(
    config: Callable[..., RunConfig], tmp_path: Path
):
    for words in (["trainer.devices=2"], ["trainer.devices=2", "trainer.strategy=ddp"], ["trainer.strategy=ddp"]):
        strategy = build_trainer(config(*words, "trainer.accelerator=cpu"), RunDir(tmp_path)).strategy
        assert isinstance(strategy, DDPStrategy) and strategy._ddp_kwargs["gradient_as_bucket_view"], words


@pytest.mark.parametrize("words", [[], ["trainer.devices=2"], ["trainer.devices=2", "trainer.strategy=fsdp"]])
def test_a_checkpoint_goes_straight_to_its_file(
    words: list[str], config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Lightning's way holds it in memory a second time, and imports s3fs, if that is installed, to look at the path."""
    monkeypatch.setattr(torch_io, "_atomic_save", lambda *_: pytest.fail("it was written in Lightning's way"))
    writer = build_trainer(config(*words), RunDir(tmp_path)).strategy.checkpoint_io
    writer.save_checkpoint({"weight": torch.ones(2)}, tmp_path / "folder" / "last.ckpt")
    assert torch.load(tmp_path / "folder" / "last.ckpt", weights_only=True)["weight"].tolist() == [1, 1]
