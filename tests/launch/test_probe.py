"""Probes: a few steps of each distinct shape, so that a plan knows time and money."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lmexp.cost.device import detect
from lmexp.cost.energy import why_no_energy
from lmexp.cost.exclusive import Exclusive
from lmexp.launch import probe as probes
from lmexp.launch.probe import known_probes, measure
from lmexp.launch.processes import has_open
from lmexp.planning.plan import CostedRun, plan, totals
from lmexp.resolve.planned import Sweep
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.probes import FILE, PROBES
from lmexp.runs.record import Row
from lmexp.study.plan import plan_resolved
from tests.busy import busy
from tests.command import start_process


@pytest.fixture
def resolve(small: list[str], tmp_path: Path) -> Callable[..., Sweep]:
    return lambda *words: resolve_sweep(None, [*small, *words], tmp_path / "outputs", name="s")


Resolve = Callable[..., Sweep]


@pytest.fixture
def whatever_else_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep all results, also on a machine that is busy now."""
    monkeypatch.setattr(probes, "MAX_WAIT_FRACTION", 1.0)


def planned(sweep: Sweep, outputs: Path) -> list[Row]:
    probes = known_probes(sweep.runs, outputs)
    return plan(
        CostedRun(p.values, p.config, p.horizon, p.device, probe) for p, probe in zip(sweep.runs, probes, strict=True)
    )


@pytest.mark.slow
def test_each_distinct_shape_is_tried_once_and_no_run_is_started(
    resolve: Resolve, tmp_path: Path, whatever_else_runs: None
):
    outputs = tmp_path / "outputs"
    sweep = resolve("model.n_layers=1,2", "seed=0,1", "optim.lr=1e-3,2e-3", "hardware.dollars_per_hour=36",
                    "hardware.watts=100")  # fmt: skip
    before = planned(sweep, outputs)
    assert {row["train_seconds"] for row in before} == {None} and totals(before)["dollars"] is None
    said: list[str] = []
    measure(sweep.runs, outputs, said.append)
    assert sum(line.startswith("measuring shape") for line in said) == 2
    assert len(list((outputs / PROBES).iterdir())) == 2
    assert not list(outputs.glob("s/*"))
    rows = planned(sweep, outputs)
    assert len({row["train_seconds"] for row in rows}) == 2
    for row in rows:
        assert row["train_seconds"] > 0
        assert row["dollars"] == pytest.approx(row["train_seconds"] / 100)
        if why_no_energy(detect("cpu")):
            assert row["energy_kwh"] == pytest.approx(row["train_seconds"] * 100 / 3.6e6)
        assert row["energy_source"] == ("estimated" if why_no_energy(detect("cpu")) else "rapl")
    assert totals(rows)["train_seconds"] == pytest.approx(sum(row["train_seconds"] for row in rows))


def test_a_budget_of_time_gets_its_tokens_from_the_trial(resolve: Resolve, tmp_path: Path, whatever_else_runs: None):
    sweep = resolve("budget.tokens=null", "budget.seconds=100")
    (row,) = planned(sweep, tmp_path / "outputs")
    assert (row["train_seconds"], row["tokens"], row["train_flops"]) == (100, None, None)
    measure(sweep.runs, tmp_path / "outputs")
    (probe,) = known_probes(sweep.runs, tmp_path / "outputs")
    (row,) = planned(sweep, tmp_path / "outputs")
    assert probe is not None
    assert row["steps"] == pytest.approx(100 / probe.step_seconds, rel=0.2)
    assert row["tokens"] == row["steps"] * 256


@pytest.mark.slow
def test_several_processes_are_tried_together(resolve: Resolve, tmp_path: Path, whatever_else_runs: None):
    sweep = resolve("trainer.devices=2")
    measure(sweep.runs, tmp_path / "outputs")
    (probe,) = known_probes(sweep.runs, tmp_path / "outputs")
    assert probe is not None and probe.step_seconds > 0


def test_a_shape_that_cannot_be_tried_is_said_and_the_others_are(
    resolve: Resolve, tmp_path: Path, whatever_else_runs: None, monkeypatch: pytest.MonkeyPatch
):
    sweep = resolve("model.n_layers=1,2")
    broken = sweep.runs[0]
    make = probes.probe_run

    def without_tokens(outputs: Path, shape: str, config):  # type: ignore[no-untyped-def]
        if config.model.n_layers == 1:
            config = config.model_copy(update={"data": config.data.model_copy(update={"fingerprint": "other"})})
            config = config.model_copy(update={"data": config.data.model_copy(update={"path": "/nowhere"})})
        return make(outputs, shape, config)

    monkeypatch.setattr(probes, "probe_run", without_tokens)
    said: list[str] = []
    measure(sweep.runs, tmp_path / "outputs", said.append)
    assert any(line.startswith(f"{broken.run.name} could not be measured: ") for line in said), said
    first, second = known_probes(sweep.runs, tmp_path / "outputs")
    assert first is None and second is not None


def test_a_trial_beside_another_run_says_so(resolve: Resolve, tmp_path: Path, whatever_else_runs: None):
    sweep = resolve()
    other = Exclusive(["cpu"])
    said: list[str] = []
    try:
        measure(sweep.runs, tmp_path / "outputs", said.append)
    finally:
        other.release()
    assert "was measured beside other work" in said[-1]


def test_a_damaged_result_counts_as_none(resolve: Resolve, tmp_path: Path, whatever_else_runs: None):
    sweep = resolve()
    measure(sweep.runs, tmp_path / "outputs")
    (file,) = (tmp_path / "outputs" / PROBES).glob("*/probe.json")
    for content in ("", "[]", "{", '{"step_seconds": "soon"}', "null"):
        file.write_text(content)
        assert known_probes(sweep.runs, tmp_path / "outputs") == [None]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux counts the waits for a core")
def test_a_speed_that_other_programs_made_too_low_is_used_and_not_kept(resolve: Resolve, tmp_path: Path):
    sweep, said = resolve(), list[str]()
    with busy(os.sched_getaffinity(0), programs=4):
        results = measure(sweep.runs, tmp_path / "outputs", said.append)
    assert "kept" in said[-1] and "waiting for its cores" in said[-1]
    assert known_probes(sweep.runs, tmp_path / "outputs") == [None]
    (row,) = plan_resolved(sweep, measured=results).rows
    assert row["train_seconds"] == pytest.approx(results[probes.shape(sweep.runs[0])].seconds(20))


def _measure(sweep: Sweep, outputs: Path) -> None:
    measure(sweep.runs, outputs)


def _processes_of(log: Path) -> list[int]:
    return [process.pid for process in psutil.process_iter() if has_open(process.pid, log)]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("devices, processes", [(1, 1), (2, 3)])  # torchrun is the third
def test_a_probe_ends_with_the_command_that_asked_for_it(
    resolve: Resolve, tmp_path: Path, devices: int, processes: int, how: signal.Signals
):
    sweep, outputs = resolve(f"trainer.devices={devices}"), tmp_path / "outputs"
    command = start_process(_measure, sweep, outputs)
    folder = outputs / PROBES / probes.shape(sweep.runs[0])
    deadline = time.monotonic() + 120
    while len(_processes_of(folder / "log.txt")) < processes and time.monotonic() < deadline:
        time.sleep(0.05)
    assert command.pid is not None
    os.kill(command.pid, how)
    command.join()
    while _processes_of(folder / "log.txt") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _processes_of(folder / "log.txt")
    assert not (folder / FILE).exists(), "it did not come to its end"
