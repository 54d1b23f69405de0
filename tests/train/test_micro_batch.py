"""batch.micro=auto: the largest that fits, the same global batch."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lmexp.config.schema import RunConfig
from lmexp.cost.device import Device
from lmexp.cost.energy import EnergyMeter
from lmexp.cost.memory import SPARE, estimate_memory
from lmexp.runs.directory import RunDir
from lmexp.train import micro_batch as micro
from lmexp.train.training import FitResult, Training
from lmexp.train.worker import main

MakeRun = Callable[..., RunDir]
AUTO = ["batch.micro=auto", "batch.tokens=1024"]


def test_where_all_of_a_step_fits_it_is_one_micro_batch(make_run: MakeRun):
    run = make_run(*AUTO)
    assert main(run.path) == 0
    assert run.read_record()[0]["micro_batch"] == 1024 // 32


def test_less_free_memory_gives_a_smaller_divisor_and_the_same_result(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
):
    whole = make_run(*AUTO)
    main(whole.path)
    config = whole.read_config()
    need = estimate_memory(config, "cpu", 12).peak  # 12 does not divide 32; 8 does
    monkeypatch.setattr(micro, "free_bytes", lambda device, share: 1.001 * need / (1 - SPARE["cpu"]))
    assert micro.sizes_to_try(config) == [8, 4, 2, 1]
    run = make_run(*AUTO, place="elsewhere")
    assert main(run.path) == 0
    (small,), (large,) = run.read_record(), whole.read_record()
    assert (small["micro_batch"], large["micro_batch"]) == (8, 32)
    assert small["steps"] == large["steps"] and small["tokens"] == large["tokens"]
    assert small["loss"] == pytest.approx(large["loss"], abs=1e-4)


def test_runs_that_share_a_gpu_count_on_their_share_of_its_memory(monkeypatch: pytest.MonkeyPatch):
    gpu = Device("cuda", "a GPU", 1, 80.0, (9, 0), native_bf16=True)
    fractions: list[float] = []
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 1e9)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (78e9, 80e9))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", fractions.append)
    assert micro.free_bytes(gpu) == 78e9
    assert micro.free_bytes(gpu, 0.25) == 20e9 - micro.CONTEXT_BYTES - 1e9, "not all that is free"
    assert 4 * (micro.bytes_of_share(gpu, 0.25) + micro.CONTEXT_BYTES) == 80e9, "four runs and their contexts fit"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2e9, 80e9))
    assert micro.free_bytes(gpu, 0.25) == 2e9, "another program has the rest"
    micro.limit_memory(gpu, 1.0)
    micro.limit_memory(gpu, 0.25)
    assert fractions == [micro.bytes_of_share(gpu, 0.25) / 80e9], "a run that has the GPU to itself has no limit"


def test_runs_that_share_a_cpu_count_on_their_share_of_its_memory(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    config = make_run(*AUTO, "launcher.slots=2").read_config()
    need = estimate_memory(config, "cpu", 12).peak / (1 - SPARE["cpu"])
    monkeypatch.setattr(micro, "memory_limits", lambda: [(2.001 * need, 0.0)])
    assert micro.sizes_to_try(config) == [8, 4, 2, 1]  # 32 would fit into all of it


@pytest.mark.slow
def test_a_device_that_runs_out_after_all_gets_the_next_smaller_one(make_run: MakeRun, tmp_path: Path):
    # What 8 layers keep of 256 sequences x 256 tokens is more than a gigabyte; the process may grow by less.
    run = make_run("batch.micro=auto", "model.context=256", f"batch.tokens={256 * 256}",
                   "budget.tokens=131072", "model.n_layers=8")  # fmt: skip
    limited = f"""
import resource, sys, pathlib
import torch, lmexp.train.worker as worker, lmexp.train.micro_batch as micro
micro.free_bytes = lambda device, share: 1e12  # an estimate that promises too much
torch.set_num_threads(1)
size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 900_000_000, resource.RLIM_INFINITY))
sys.exit(worker.main(pathlib.Path({str(run.path)!r})))
"""
    ended = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (row,) = run.read_record()
    assert row["micro_batch"] < 256 and 256 % row["micro_batch"] == 0
    assert "does not fit; trying" in ended.stdout
    assert row["steps"] == 2 and row["exclusive"] is not None
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY  # only the child was limited


def test_a_training_that_ran_out_of_memory_costs_time_and_energy(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    meter = SimpleNamespace(joules=lambda: spent[0], sample=lambda: None, source="nvml")
    spent = [5000.0]
    monkeypatch.setattr("lmexp.train.spending.open_meter", lambda *_, **__: EnergyMeter(meter, "nvml"))
    monkeypatch.setattr(micro, "sizes_to_try", lambda config: [8, 4])
    fit = Training.fit

    def fails_first(self: Training, *arguments: Any) -> FitResult:
        spent[0] += 3.6e6 if self.config.batch.micro == 8 else 1.8e6
        if self.config.batch.micro == 8:
            time.sleep(0.3)
            raise torch.OutOfMemoryError("out of memory")
        return fit(self, *arguments)

    monkeypatch.setattr(Training, "fit", fails_first)
    run = make_run("budget.tokens=512")
    started = time.time()
    assert main(run.path) == 0
    [row] = run.read_record()
    assert (row["micro_batch"], row["energy_kwh"], row["energy_source"]) == (4, 1.5, "nvml")
    assert 0.3 < row["wall_seconds"] <= time.time() - started


@pytest.mark.parametrize("compiles", [True, False])
def test_graphs_of_a_size_that_did_not_fit_are_dropped(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, compiles: bool
):
    config = make_run(*AUTO, f"trainer.compile={compiles}").read_config()
    events: list[str] = []
    monkeypatch.setattr(micro, "sizes_to_try", lambda config: [8, 4])
    monkeypatch.setattr(torch.compiler, "reset", lambda: events.append("reset"))

    def train(fitting: RunConfig) -> None:
        events.append(f"trained with {fitting.batch.micro}")
        if fitting.batch.micro == 8:
            raise torch.OutOfMemoryError("out of memory")

    micro.fit_micro_batch(config, train)
    dropped = ["reset"] if compiles else []
    assert events == ["trained with 8", *dropped, "trained with 4"]
