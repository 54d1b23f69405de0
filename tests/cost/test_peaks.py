"""Measured peaks: of this device and these threads, kept, and measured only where asked."""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmexp.cost import peaks
from lmexp.cost.device import detect
from lmexp.cost.peaks import PEAKS_FILE, key_of, measured_peak, read_peaks, remember_peaks
from lmexp.files import write_json
from tests.busy import busy
from tests.command import start_process

CPU = detect("cpu")


def test_a_peak_is_measured_once_and_only_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert measured_peak(tmp_path, CPU, "fp32", 1, measure=False) is None
    monkeypatch.setattr(peaks.CpuWait, "fraction", lambda wait: 0.0)  # whatever else this machine does now
    first = measured_peak(tmp_path, CPU, "fp32", 1, measure=True)
    assert first is not None and first > 1e9
    monkeypatch.setattr(peaks, "matmul_peaks", lambda *asked, **how: pytest.fail("measured again"))
    assert measured_peak(tmp_path, CPU, "fp32", 1, measure=True) == first


def _measured_on(core: int, folder: Path) -> None:
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    assert (measured_peak(folder, CPU, "fp32", 1, measure=True) or 0.0) > 0


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_a_peak_that_other_programs_slowed_down_is_not_kept(tmp_path: Path):
    core = min(os.sched_getaffinity(0))
    with busy({core}, programs=2):
        measured = start_process(_measured_on, core, tmp_path)
        measured.join(timeout=120)
    assert measured.exitcode == 0 and read_peaks(tmp_path, key_of(CPU, 1)) == {}


def test_one_thread_is_not_held_against_the_peak_of_two(tmp_path: Path):
    remember_peaks(tmp_path, key_of(CPU, 2), {"peak_flops": {"fp32": 2e11}})
    assert measured_peak(tmp_path, CPU, "fp32", 1, measure=False) is None
    assert measured_peak(tmp_path, CPU, "fp32", 2, measure=False) == 2e11


def test_fp8_is_not_measured_by_a_matmul_that_does_not_do_it(tmp_path: Path):
    assert measured_peak(tmp_path, CPU, "fp8", 1, measure=True) is None


def test_what_is_learnt_joins_what_is_known(tmp_path: Path):
    remember_peaks(tmp_path, "it", {"peak_flops": {"fp32": 1.0}, "memory_gb_per_second": 5.0})
    remember_peaks(tmp_path, "it", {"peak_flops": {"bf16": 2.0}})
    assert read_peaks(tmp_path, "it") == {"peak_flops": {"fp32": 1.0, "bf16": 2.0}, "memory_gb_per_second": 5.0}


@pytest.mark.parametrize(
    "damaged",
    [
        [],
        {"other": 1},
        {"other": {"peak_flops": {"fp32": "fast"}}},
        {"other": {"peak_flops": {"fp32": -1}}},
        {"other": {"peak_flops": {"fp32": 10**400}}},
        {"other": {"peak_flops": {"fp32": True}}},
        {"other": {"peak_flops": {}, "memory_gb_per_second": "x"}},
        {"other": {"peak_flops": {}, "measured": [1]}},
    ],
)
def test_a_damaged_entry_of_the_file_is_measured_again(tmp_path: Path, damaged: Any):
    write_json(tmp_path / PEAKS_FILE, damaged)
    assert read_peaks(tmp_path, "other") == {}
    remember_peaks(tmp_path, "other", {"peak_flops": {"fp32": 2e9}, "measured": "today"})
    assert read_peaks(tmp_path, "other")["peak_flops"] == {"fp32": 2e9}


def _remember(folder: Path, number: int) -> None:
    for again in range(5):
        remember_peaks(folder, f"{number}-{again}", {"peak_flops": {"fp32": 1.0}})


@pytest.mark.slow
def test_runs_that_measure_at_the_same_time_lose_nothing(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    each = [context.Process(target=_remember, args=(tmp_path, number)) for number in range(4)]
    for process in each:
        process.start()
    for process in each:
        process.join(60)
    assert all(read_peaks(tmp_path, f"{number}-{again}") for number in range(4) for again in range(5))


def test_a_product_counts_two_operations_for_each_of_its_n_cubed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that gives small products 3 s and large ones 2 s; the best size counts."""
    monkeypatch.setitem(peaks.MATMUL_SIZES, "cpu", (10, 20))
    clock = {10: 3.0, 20: 2.0}
    monkeypatch.setattr(peaks, "_fastest_seconds", lambda actions, *_: {key: clock[key[1]] for key in actions})
    assert peaks.matmul_peaks(["fp32", "bf16"], CPU) == {"fp32": 20**3, "bf16": 20**3}


def test_a_slow_compute_type_is_measured_with_small_matrices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own kernels may take half a minute for a product in bf16 that takes less than a second in fp32."""
    monkeypatch.setitem(peaks.MATMUL_SIZES, "cpu", (10, 20, 40))
    monkeypatch.setattr(peaks, "_fastest_seconds", lambda actions, *_: {key: float(key[1]) for key in actions})
    assert peaks.matmul_peaks(["fp32"], CPU) == {"fp32": 2 * 40**3 / 40}
    monkeypatch.setattr(peaks, "MAX_PRODUCT_SECONDS", 0.0)
    assert peaks.matmul_peaks(["fp32", "bf16"], CPU) == {"fp32": 2 * 10**3 / 10, "bf16": 2 * 10**3 / 10}


def test_a_copy_counts_what_is_read_and_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """All copies between two readings of the clock count; on a GPU there are several."""
    monkeypatch.setitem(peaks.COPY_BYTES, "cpu", 1000)
    copied: list[torch.Tensor] = []
    copy = torch.Tensor.copy_
    monkeypatch.setattr(torch.Tensor, "copy_", lambda target, source: copied.append(target) or copy(target, source))

    def one_microsecond(actions: dict[str, Callable[[], None]], *_: object) -> dict[str, float]:
        [(name, action)] = actions.items()
        action()
        return {name: 1e-6}

    monkeypatch.setattr(peaks, "_fastest_seconds", one_microsecond)
    assert peaks.memory_bandwidth(CPU) == pytest.approx(2.0) and len(copied) == 1
    monkeypatch.setitem(peaks.COPIES, "cpu", 16)
    assert peaks.memory_bandwidth(CPU) == pytest.approx(32.0) and len(copied) == 1 + 16
    assert peaks.COPIES["cuda"] > 1 and peaks.COPY_BYTES["cuda"] > peaks.COPY_BYTES["cpu"]


def test_the_fastest_of_several_times_counts_and_the_first_does_not() -> None:
    pauses = iter([0.0, 0.06, 0.03, 0.06])  # the first would be the fastest
    seconds = peaks._fastest_seconds({"pause": lambda: time.sleep(next(pauses))}, CPU, budget=0.0)
    assert 0.03 <= seconds["pause"] < 0.06


def test_measuring_leaves_torchs_matmul_precision_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peaks.MATMUL_SIZES, "cpu", (32,))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        peaks.matmul_peaks(["fp32", "tf32"], CPU, seconds=0.0)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
