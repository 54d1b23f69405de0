"""The meter of steps: what counts as training time, and what does not."""

import pytest
import torch

from lmexp.cost.step_meter import StepMeter


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(meter: StepMeter, clock: Clock, steps: int, wait: float, work: float, pause: float, every: int = 1) -> None:
    """Train: wait for data, work, and pause (validation, say) after every so many steps."""
    meter.rest()
    for step in range(1, steps + 1):
        clock.now += wait
        meter.begin()
        clock.now += work
        meter.end()
        if step % every == 0:
            meter.close()
        clock.now += pause if step % every == 0 else 0
        meter.rest()


def test_pauses_between_steps_are_no_training_time_and_waiting_is():
    clock = Clock()
    meter = StepMeter(batch_tokens=1000, clock=clock)
    run(meter, clock, steps=20, wait=0.25, work=0.75, pause=9.0)
    figures = meter.summary()
    assert figures["train_seconds"] == pytest.approx(20)
    assert figures["tokens_per_second"] == pytest.approx(1000)
    assert figures["step_ms_p50"] == figures["step_ms_p95"] == pytest.approx(1000)
    assert figures["data_wait_fraction"] == pytest.approx(0.25)


def test_the_warm_up_is_left_out_of_speed_and_kept_in_time():
    clock = Clock()
    meter = StepMeter(batch_tokens=1000, clock=clock)
    run(meter, clock, steps=5, wait=0, work=10, pause=0)
    run(meter, clock, steps=20, wait=0, work=1, pause=0)
    assert meter.summary()["tokens_per_second"] == pytest.approx(1000)
    assert meter.summary()["train_seconds"] == pytest.approx(70)


class Device:
    """A GPU as the host sees it: it takes work at once, and is caught up with by synchronising."""

    type = "cuda"

    def __init__(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.busy_until = clock, 0.0
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: self.wait())
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: Event(self))

    def wait(self) -> None:
        self.clock.now = max(self.clock.now, self.busy_until)

    def work(self, seconds: float) -> None:
        """Take work from the host, which goes on at once."""
        self.busy_until = max(self.busy_until, self.clock.now) + seconds


class Event:
    """A mark in the work of a device, which gets its time when the device comes to it."""

    def __init__(self, device: Device) -> None:
        self.device, self.reached = device, 0.0

    def record(self) -> None:
        self.reached = max(self.device.clock.now, self.device.busy_until)

    def elapsed_time(self, end: "Event") -> float:
        assert self.device.clock.now >= end.reached, "read only when the device has caught up"
        return 1e3 * (end.reached - self.reached)


@pytest.mark.parametrize("every", [1, 4, 7])
def test_a_device_that_runs_behind_the_host_is_waited_for_before_its_results_are_read(
    every: int, monkeypatch: pytest.MonkeyPatch
):
    clock = Clock()
    device = Device(clock, monkeypatch)
    meter = StepMeter(batch_tokens=1000, device=device, clock=clock)  # type: ignore[arg-type]
    meter.rest()
    for step in range(1, 57):
        meter.begin()
        clock.now += 0.001  # the host hands out the work
        device.work(0.01)
        meter.end()
        if step % every == 0:
            meter.close()
        if step % every == 0:
            device.wait()  # somebody reads the loss
        meter.rest()
    assert meter.summary()["step_ms_p50"] == pytest.approx(10, rel=0.15)
    assert meter.train_seconds == pytest.approx(56 * 0.01, rel=0.15)


@pytest.mark.parametrize(("fetch", "idle"), [(0.004, 0.0), (0.010, 0.0), (0.015, 0.005)])
def test_a_wait_counts_only_while_the_device_has_nothing_to_do(
    fetch: float, idle: float, monkeypatch: pytest.MonkeyPatch
):
    """A device that works 10 ms on each micro-batch; it has no work yet while the first one is fetched."""
    clock = Clock()
    device = Device(clock, monkeypatch)
    meter = StepMeter(batch_tokens=1000, device=device, clock=clock)  # type: ignore[arg-type]
    meter.rest()
    for step in range(1, 11):
        for micro_batch in range(4):
            if micro_batch:
                meter.await_batch()
            clock.now += fetch
            meter.begin()
            device.work(0.010)
        meter.end()
        if step == 10:
            meter.close()
        meter.rest()
    assert meter.wait_seconds == pytest.approx(fetch + 39 * idle)
    assert meter.train_seconds == pytest.approx(fetch + 40 * 0.010 + 39 * idle)


def test_a_meter_goes_on_from_a_checkpoint():
    clock = Clock()
    first, second = StepMeter(1000, clock=clock), StepMeter(1000, clock=clock)
    run(first, clock, steps=10, wait=0, work=1, pause=0)
    second.load_state_dict(first.state_dict())
    run(second, clock, steps=10, wait=0, work=1, pause=0)
    assert second.train_seconds == pytest.approx(20) and len(second.windows) == 20
