"""How many runs side by side make the best use of a device: chosen from probes, which are remembered."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lmexp.config.checks import device_share
from lmexp.launch.probe import known_probes, shape
from lmexp.launch.sharing import best_sharing, settle_sharing, shared
from lmexp.launch.slots import slots_of, threads_of
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir
from lmexp.runs.probes import PROBES, Probe, probe_run, write_probe

AUTO = "launcher.devices_per_run=auto"
OWN_THREADS = "launcher.threads=null"
Resolve = Callable[..., Sweep]


@pytest.fixture
def resolve(small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resolve:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return lambda *words: resolve_sweep(None, [*small, *words], tmp_path / "outputs", name="s")


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("slots", "sharing"):
        monkeypatch.setattr(f"lmexp.launch.{module}.cores", lambda: 4)


def remember(planned: PlannedRun, outputs: Path, step_seconds: dict[int, float]) -> None:
    """Leave probes of a run that shares its device with so many runs."""
    for runs, seconds in step_seconds.items():
        trial = shared(planned, runs)
        probe = Probe(seconds, 10, 1.0, 5, None, None, 0.0)
        write_probe(probe_run(outputs, shape(trial), trial.config), probe)


@pytest.mark.parametrize(
    ("step_seconds", "chosen", "speedup"),
    [
        ({1: 1.0, 2: 1.1, 4: 1.6}, 4, 2.5),
        ({1: 1.0, 2: 1.1, 4: 2.15}, 2, 2 / 1.1),  # 4 gain too little for runs that each end later
        ({1: 1.0, 2: 2.0}, 1, 1.0),  # then 4 are not tried
    ],
)
def test_runs_share_a_device_as_long_as_that_pays(
    resolve: Resolve, tmp_path: Path, four_cores: None, step_seconds: dict[int, float], chosen: int, speedup: float
):
    sweep = resolve(AUTO, OWN_THREADS, "seed=0,1,2,3")
    remember(sweep.runs[0], tmp_path / "outputs", step_seconds)
    settled, sharing = settle_sharing(sweep, may_measure=False)
    assert sharing is not None and (sharing.runs, sharing.speedup) == (chosen, pytest.approx(speedup))
    for before, planned in zip(sweep.runs, settled.runs, strict=True):
        assert planned.identity == before.identity, "how runs are placed does not change which runs they are"
        assert (slots_of(planned.config, planned.device), threads_of(planned.config, planned.device)) == (
            chosen,
            4 // chosen,
        )
        assert device_share(planned.config, "cpu") == device_share(planned.config, "cuda") == 1 / chosen


def test_what_is_not_measured_is_not_guessed_and_a_sweep_of_one_run_needs_no_measurement(
    resolve: Resolve, tmp_path: Path, four_cores: None
):
    sweep = resolve(AUTO, OWN_THREADS, "seed=0,1")
    settled, sharing = settle_sharing(sweep, may_measure=False)
    assert sharing is None and {slots_of(each.config, each.device) for each in settled.runs} == {1}
    remember(sweep.runs[0], tmp_path / "outputs", {1: 1.0})
    assert settle_sharing(sweep, may_measure=False)[1] is None
    _, of_one_run = settle_sharing(resolve(AUTO, OWN_THREADS), may_measure=False)
    assert of_one_run is not None and of_one_run.runs == 1


def test_a_number_of_runs_that_the_config_sets_is_left_alone(resolve: Resolve):
    for words in (["launcher.slots=2"], ["launcher.devices_per_run=0.5", "launcher.exclusive=false"]):
        sweep = resolve(*words, "seed=0,1")
        assert settle_sharing(sweep, may_measure=True) == (sweep, None)
        assert best_sharing(sweep, may_measure=True) is None


@pytest.mark.slow
def test_copies_are_measured_side_by_side_once(resolve: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for module in ("slots", "sharing"):
        monkeypatch.setattr(f"lmexp.launch.{module}.cores", lambda: 2)
    monkeypatch.setattr("lmexp.launch.probe.MAX_WAIT_FRACTION", 1.0)  # whatever else this machine does now
    sweep, said = resolve(AUTO, OWN_THREADS, "seed=0,1"), []  # type: tuple[Sweep, list[str]]
    _, sharing = settle_sharing(sweep, may_measure=True, say=said.append)
    assert sharing is not None
    assert [line for line in said if line.startswith("measuring")] == [
        f"measuring {runs} at a time: {sweep.runs[0].run.name}" for runs in ("1 run", "2 runs")
    ]
    (pair,) = known_probes([shared(sweep.runs[0], 2)], tmp_path / "outputs")
    assert pair is not None and not pair.exclusive, "the copies saw each other"
    assert len(list((tmp_path / "outputs" / PROBES).iterdir())) == 2, "a copy leaves nothing behind"
    said.clear()
    assert settle_sharing(sweep, may_measure=True, say=said.append)[1] == sharing and not said


def test_the_shape_that_most_of_the_time_to_come_is_spent_on_stands_for_the_sweep(
    resolve: Resolve, tmp_path: Path, four_cores: None
):
    sweep, outputs = resolve(AUTO, OWN_THREADS, "model.n_layers=1,8", "seed=0,1"), tmp_path / "outputs"
    small, large = (
        next(planned for planned in sweep.runs if planned.values["model.n_layers"] == layers) for layers in (1, 8)
    )
    remember(large, outputs, {1: 0.01, 2: 0.02})
    by_flops = best_sharing(sweep, may_measure=False)
    assert by_flops and (by_flops.measured_on, by_flops.runs) == (large.run.name, 1)
    remember(small, outputs, {1: 0.02, 2: 0.02, 4: 0.02})
    by_time = best_sharing(sweep, may_measure=False)
    assert by_time and (by_time.measured_on, by_time.runs) == (small.run.name, 4)
    for planned in sweep.runs:
        if planned.values["model.n_layers"] == 1:
            RunDir.create(planned.run.path, planned.config).update_state(state="diverged")
    of_the_rest = best_sharing(sweep, may_measure=False)
    assert of_the_rest and of_the_rest.measured_on == large.run.name
