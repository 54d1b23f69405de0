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

    def wait(self) -> None:
        self.clock.now = max(self.clock.now, self.busy_until)


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
        device.busy_until = max(device.busy_until, clock.now) + 0.01
        meter.end()
        if step % every == 0:
            meter.close()
        if step % every == 0:
            device.wait()  # somebody reads the loss
        meter.rest()
    assert meter.summary()["step_ms_p50"] == pytest.approx(10, rel=0.15)
    assert meter.train_seconds == pytest.approx(56 * 0.01, rel=0.15)


def test_a_meter_goes_on_from_a_checkpoint():
    clock = Clock()
    first, second = StepMeter(1000, clock=clock), StepMeter(1000, clock=clock)
    run(first, clock, steps=10, wait=0, work=1, pause=0)
    second.load_state_dict(first.state_dict())
    run(second, clock, steps=10, wait=0, work=1, pause=0)
    assert second.train_seconds == pytest.approx(20) and len(second.windows) == 20
