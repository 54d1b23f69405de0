"""The columns of a record, computed from what a run measured."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from lmexp.config.schema import HardwareConfig
from lmexp.cost.device import Device
from lmexp.cost.flops import count_run
from lmexp.tasks.base import Quality
from lmexp.train import results
from lmexp.train.spending import Spent

GPU = Device("cuda", "a GPU", 2, 80.0, (9, 0), native_bf16=True)


def test_a_perplexity_that_no_float_holds_is_null():
    quality = Quality.from_sums(nll=1e5, tokens=10, correct=3, text_bytes=None)
    assert quality.perplexity == math.inf
    assert results.quality_columns(quality) == {
        "loss": 1e4,
        "perplexity": None,
        "word_perplexity": None,
        "bits_per_byte": None,
        "accuracy": 0.3,
    }


def test_money_is_the_price_of_all_devices_over_the_wall_time():
    row = results.price_columns(Spent(7200.0, 3.6e6, "nvml"), HardwareConfig(dollars_per_hour=3.0), 4, 2_000_000)
    assert row["dollars"] == 4 * 2 * 3.0 and row["dollars_per_million_tokens"] == 12.0
    assert row["energy_kwh"] == 1.0 and row["kwh_per_million_tokens"] == 0.5 and row["energy_source"] == "nvml"


def test_without_a_price_or_a_counter_money_and_energy_are_null_and_so_is_the_source():
    row = results.price_columns(Spent(7200.0, None, "estimated"), HardwareConfig(), 1, 1000)
    assert {name for name, value in row.items() if value is not None} == {"wall_seconds"}


def training(config: Any, peak: dict[str, float], processes: int = 2) -> Any:
    """As much of a Training as the utilisation of its devices depends on."""
    hardware = HardwareConfig(peak_flops=peak, peak_source="a datasheet")
    trainer = SimpleNamespace(world_size=processes)
    count = count_run(config)
    return SimpleNamespace(config=config, hardware=hardware, device=GPU, trainer=trainer, outputs=None, count=count)


def test_mfu_is_relative_to_the_peak_of_all_devices(config: Any):
    resolved = config("model.vocab_size=257")
    count = count_run(resolved)
    row = results.utilisation_columns(training(resolved, {"fp32": 1e12}), 1000.0, may_measure=False)
    masked = count.parts["attention_scores"] / 2
    assert row == {
        "peak_flops": 1e12,
        "peak_source": "a datasheet",
        "mfu": pytest.approx(1000 * count.flops_per_token / 2e12),
        "mfu_causal": pytest.approx(1000 * (count.flops_per_token - masked) / 2e12),
        "hfu": pytest.approx(1000 * count.executed(False) / 2e12),
    }
    again = config("model.vocab_size=257", "trainer.activation_checkpointing=full")
    more = results.utilisation_columns(training(again, {"fp32": 1e12}), 1000.0, may_measure=False)
    assert more["mfu"] == row["mfu"] and more["hfu"] == pytest.approx(1000 * count.executed(True) / 2e12)
    assert more["hfu"] > 1.1 * row["hfu"]


def test_without_a_peak_there_is_no_mfu_unless_the_peak_may_be_measured(config: Any, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def measured(outputs: Any, device: Device, compute: str, threads: int, measure: bool) -> float | None:
        asked.append(measure)
        return 5e11 if measure else None

    monkeypatch.setattr(results, "measured_peak", measured)
    resolved = config("model.vocab_size=257")
    assert results.utilisation_columns(training(resolved, {}), 1000.0, may_measure=False) == {}
    row = results.utilisation_columns(training(resolved, {}), None, may_measure=True)
    assert row == {"peak_flops": 5e11, "peak_source": "measured"} and asked == [False, True]


def test_a_full_disk_costs_the_peak_and_not_the_record(config: Any, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> float:
        raise OSError("no space left on device")

    monkeypatch.setattr(results, "measured_peak", full)
    assert results.utilisation_columns(training(config("model.vocab_size=257"), {}), 1.0, may_measure=True) == {}
