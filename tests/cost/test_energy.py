"""Energy: a counter's difference, else rated power times time, else nothing; never 0 for the unknown."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.cost import energy
from lmexp.cost.device import detect
from lmexp.cost.energy import EnergyMeter, RaplCounter, open_meter, packages

CPU = detect("cpu")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages, a part of one, and the whole platform, as Linux shows them."""
    for name, label in {
        "intel-rapl:0": "package-0",
        "intel-rapl:1": "package-1",
        "intel-rapl:0:0": "core",
        "intel-rapl:2": "psys",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(f"{label}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000000\n")
        (tmp_path / name / "energy_uj").write_text("400000\n")
    return tmp_path


def spend(folder: Path, name: str, microjoules: int) -> None:
    file = folder / name / "energy_uj"
    file.write_text(f"{(int(file.read_text()) + microjoules) % 1_000_001}\n")


def test_whole_packages_are_added_up_and_nothing_is_counted_twice(powercap: Path):
    meter = EnergyMeter(RaplCounter(powercap), "rapl")
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "intel-rapl:2"):
        spend(powercap, name, 250_000)
    assert meter.joules() == pytest.approx(0.5)
    assert [path.name for path in packages(powercap)] == ["intel-rapl:0", "intel-rapl:1"]


@given(st.lists(st.integers(0, 1_000_000), max_size=30))
def test_a_counter_that_begins_again_loses_nothing(tmp_path_factory: pytest.TempPathFactory, spent: list[int]):
    folder = tmp_path_factory.mktemp("powercap")
    (folder / "intel-rapl:0").mkdir()
    for file, text in {"name": "package-0", "max_energy_range_uj": "1000000", "energy_uj": "999999"}.items():
        (folder / "intel-rapl:0" / file).write_text(text)
    meter = EnergyMeter(RaplCounter(folder), "rapl")
    for microjoules in spent:
        spend(folder, "intel-rapl:0", microjoules)
        meter.sample()
    assert meter.joules() == pytest.approx(sum(spent) / 1e6)


def test_without_a_counter_rated_power_times_time_is_an_estimate_and_says_so():
    clock = Clock()
    meter = EnergyMeter(None, None, watts=700, clock=clock)
    clock.now = 10
    assert (meter.joules(), meter.source) == (7000, "estimated")


def test_without_either_energy_is_unknown_and_not_zero():
    meter = EnergyMeter(None, None)
    assert meter.joules() is None and meter.source is None


def test_a_counter_that_fails_on_the_way_makes_energy_unknown(powercap: Path):
    meter = EnergyMeter(RaplCounter(powercap), "rapl")
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    meter.sample()
    assert meter.joules() is None and meter.source is None


def test_the_processes_of_a_run_on_one_cpu_count_it_once(powercap: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(energy.RaplCounter.__init__, "__defaults__", (powercap,))
    first, second = (open_meter(CPU, 0, None, shares_machine=shares) for shares in (False, True))
    spend(powercap, "intel-rapl:0", 100_000)
    assert (first.joules(), second.joules()) == (pytest.approx(0.1), 0)


def test_a_counter_that_nobody_may_read_falls_back_to_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(energy.RaplCounter.__init__, "__defaults__", (tmp_path,))
    assert open_meter(CPU, 0, 65.0, shares_machine=False).source == "estimated"
    assert open_meter(CPU, 0, None, shares_machine=False).source is None
