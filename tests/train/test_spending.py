"""What a run has spent: earlier attempts count, and one estimate makes the whole an estimate."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from lmexp.train.spending import Spending, Spent, Watch

ALONE: Any = SimpleNamespace(world_size=1)


class Meter:
    """An energy meter with a given count and source."""

    def __init__(self, joules: float | None, source: str | None) -> None:
        self.source, self._joules = source, joules

    def joules(self) -> float | None:
        return self._joules


def spent(joules: float | None, source: str | None, before: Spent | None = None) -> Spent:
    meter: Any = Meter(joules, source)
    spending = Spending(Watch(meter, began=time.time() - 10))
    if before is not None:
        spending.load_state_dict(vars(before))
    return spending.total(ALONE)


def test_time_and_energy_of_earlier_attempts_are_added():
    total = spent(5.0, "rapl", Spent(100.0, 7.0, "rapl"))
    assert total.wall_seconds == pytest.approx(110, abs=1)
    assert (total.joules, total.source) == (12.0, "rapl")


@pytest.mark.parametrize(
    ("now", "before", "joules", "source"),
    [
        ((5.0, "rapl"), None, 5.0, "rapl"),
        ((5.0, "rapl"), Spent(1.0, 7.0, "estimated"), 12.0, "estimated"),
        ((5.0, "estimated"), Spent(1.0, 7.0, "rapl"), 12.0, "estimated"),
        ((5.0, "nvml"), Spent(1.0, 7.0, "rapl"), 12.0, "estimated"),
        ((None, None), Spent(1.0, 7.0, "rapl"), None, "estimated"),
        ((5.0, "rapl"), Spent(1.0, None, None), None, "rapl"),
    ],
)
def test_what_is_unknown_or_estimated_in_a_part_is_so_in_the_whole(
    now: tuple, before: Spent | None, joules: float | None, source: str
):
    total = spent(*now, before)
    assert (total.joules, total.source) == (joules, source)


def test_only_the_share_of_a_device_that_a_run_has_is_its_energy():
    meter: Any = Meter(8.0, "nvml")
    spending = Spending(Watch(meter, time.time()), device_share=0.25)
    spending.load_state_dict(vars(Spent(1.0, 7.0, "nvml")))
    assert spending.total(ALONE).joules == 7 + 2


def test_a_checkpoint_keeps_the_total_and_a_resumed_run_continues_from_it():
    meter: Any = Meter(5.0, "rapl")
    spending = Spending(Watch(meter, began=time.time() - 10))
    spending.setup(ALONE, SimpleNamespace(), "fit")  # type: ignore[arg-type]
    kept = spending.state_dict()
    assert spent(2.0, "rapl", Spent(**kept)).joules == 7.0


def test_a_training_that_continues_from_its_own_checkpoint_counts_nothing_twice_and_loses_nothing():
    """As after an out-of-memory error with batch.micro=auto: the next training of the process shares the watch."""
    counter: Any = Meter(5.0, "rapl")
    watch = Watch(counter, began=time.time() - 10)
    first, second = Spending(watch), Spending(watch)
    first.setup(ALONE, SimpleNamespace(), "fit")  # type: ignore[arg-type]
    kept = first.state_dict()
    counter._joules = 9.0  # of which 4 J after the checkpoint, before memory ran out
    second.load_state_dict(kept)
    counter._joules = 11.0
    total = second.total(ALONE)
    assert total.joules == 11.0 and total.wall_seconds == pytest.approx(10, abs=1)
    watch.restart()  # a further milestone
    assert watch.joules() == 0 and watch.seconds == pytest.approx(0, abs=1) and watch.began > time.time() - 5
