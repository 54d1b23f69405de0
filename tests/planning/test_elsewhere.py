"""A plan for hardware that is not here: hours from an assumed MFU, memory, and which GPU each run gets."""

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from lmexp.config.compose import Composer
from lmexp.config.paths import shipped_root
from lmexp.config.schema import RunConfig, RunInfo
from lmexp.cost.elsewhere import HardwareElsewhere, fit, hardware_elsewhere
from lmexp.cost.horizon import horizon
from lmexp.cost.memory import estimate_memory
from lmexp.errors import UserError
from lmexp.launch.placement import max_at_once, place_runs
from lmexp.planning.plan import CostedRun, plan
from lmexp.report.terminal.plan import print_plan
from lmexp.resolve.planned import PlannedRun
from lmexp.runs.directory import RunDir

Config = Callable[..., RunConfig]


def there(name: str = "h100_sxm", devices: int = 8, mfu: float | None = None) -> HardwareElsewhere:
    known = hardware_elsewhere(name, devices, mfu, [shipped_root()])
    assert known is not None
    return known


def row_of(config: RunConfig, on: HardwareElsewhere) -> dict:
    length = horizon(config, 10**6, "cuda")
    (row,) = plan([CostedRun({}, config, length, on.device, on.speed(config, length))])
    return row


def on(config: RunConfig, hardware: HardwareElsewhere) -> RunConfig:
    return config.model_copy(update={"hardware": hardware.hardware})


@pytest.mark.parametrize(("precision", "peak"), [("bf16", 989.5e12), ("tf32", 494.5e12)])
def test_hours_and_dollars_are_flops_over_devices_peak_and_mfu(config: Config, precision: str, peak: float):
    hardware = there(mfu=0.3)
    run = on(config("model.vocab_size=257", f"precision={precision}", "trainer.devices=8"), hardware)
    row = row_of(run, hardware)
    assert row["train_seconds"] == pytest.approx(row["train_flops"] / (8 * peak * 0.3))
    assert row["train_hours"] == row["train_seconds"] / 3600
    assert row["dollars"] == pytest.approx(3.9492 * 8 * row["train_hours"])
    assert row["time_source"] == row["energy_source"] == "assumed"


def test_a_tiny_run_has_no_number_with_an_exponent_in_its_plan(config: Config):
    hardware = there()
    row = row_of(on(config("model.vocab_size=257"), hardware), hardware)
    assert row["train_hours"] < 1e-6 and row["dollars"] < 1e-4
    console = Console(width=200, file=io.StringIO())
    print_plan([row], console)
    shown = console.file.getvalue()
    assert "<1 s" in shown and "<0.0001" in shown and not re.search(r"\de-\d", shown)


def test_a_model_that_is_too_large_is_told_with_the_devices_that_it_needs():
    # 16 bytes for each weight: weights, gradients and two moments of AdamW, in float32
    words = ["model=llama_7b", "model.vocab_size=32000", "model.context=2048", "batch.tokens=131072"]
    run = Composer([shipped_root()], words=words).config({})
    fitting = fit(run, 80)
    assert not fitting.fits and fitting.devices is not None and "trainer.strategy=fsdp" in fitting.overrides
    assert 16 * 6.7e9 / fitting.devices < 80e9 * 0.9
    trainer = {"devices": fitting.devices, "strategy": "fsdp"}
    changed = run.model_copy(update={"trainer": run.trainer.model_copy(update=trainer)})
    assert estimate_memory(changed, "cuda", 1).peak <= 0.9 * 80e9


def test_a_micro_batch_that_fits_comes_before_more_devices(config: Config):
    assert fit(config("model.vocab_size=257"), 80).fits
    run = config("model.vocab_size=257", "batch.tokens=67108864")
    assert fit(run, 80).overrides == ("batch.micro=auto",) and fit(run, 80).devices == 1


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("v100_16gb_sxm", ["precision=bf16"], "no peak of v100_16gb_sxm for bf16"),
        ("mi300x", ["precision=tf32"], "NVIDIA GPUs only"),
        ("h100_sxm", ["trainer.devices=16"], "takes 16 devices .*--devices is 8"),
        ("h100_sxm", ["trainer.accelerator=cpu"], "--on plans for GPUs"),
    ],
)
def test_what_cannot_train_there_is_refused_with_the_reason(config: Config, name: str, words: list[str], message: str):
    with pytest.raises(UserError, match=message):
        there(name).check(config("model.vocab_size=257", *words))


@pytest.mark.parametrize(
    ("name", "devices", "mfu", "message"),
    [
        ("a100", 1, None, "Did you mean a100_40gb_pcie, .*a100_80gb_sxm"),
        ("h100_smx", 1, None, "Did you mean 'h100_sxm'"),
        ("tpu_v4", 1, None, "does not run on TPUs"),
        ("h100_sxm", 0, None, "--devices 0"),
        ("h100_sxm", 1, 1.5, "--mfu 1.5"),
        (None, 4, None, "needs --on"),
    ],
)
def test_wrong_hardware_is_one_message(name: str | None, devices: int, mfu: float | None, message: str):
    with pytest.raises(UserError, match=message):
        hardware_elsewhere(name, devices, mfu, [shipped_root()])


def planned(config: RunConfig, name: str, hardware: HardwareElsewhere) -> PlannedRun:
    config = config.model_copy(update={"run": RunInfo(id=name, sweep="s", slug=name)})
    return PlannedRun({}, config, horizon(config, 10**6, "cuda"), hardware.device, RunDir(Path(name)))


def test_four_runs_on_four_gpus_train_side_by_side_whatever_is_visible_here(
    config: Config, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # of this machine
    hardware = there(devices=4)
    runs = [planned(config("model.vocab_size=257"), f"run{i}", hardware) for i in range(5)]
    placed = place_runs(runs, [4.0, 1.0, 3.0, 3.0, 2.0], hardware.device)
    assert [one.devices for one in placed] == [("0",), ("1",), ("2",), ("3",), ("1",)]
    assert [(one.starts, one.ends) for one in placed][-1] == (1.0, 3.0) and max(one.ends for one in placed) == 4.0
    assert max_at_once(placed) == (4, 4)


def test_runs_of_four_gpus_take_turns_on_eight(config: Config):
    hardware = there(devices=8)
    runs = [planned(config("model.vocab_size=257", "trainer.devices=4"), f"run{i}", hardware) for i in range(3)]
    placed = place_runs(runs, [1.0, 2.0, 1.0], hardware.device)
    assert [one.devices for one in placed] == [tuple("0123"), tuple("4567"), tuple("0123")]
    assert [one.starts for one in placed] == [0, 0, 1]
