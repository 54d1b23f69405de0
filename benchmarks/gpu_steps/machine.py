"""The machine: what the doctor says of it, and whether its energy counter tells the truth."""

import threading
import time

from gpu_steps.bench import Bench


def device(bench: Bench) -> None:
    """Show the device and its measured peaks."""
    doctor = bench.lmexp("doctor")
    about = doctor["device"]
    bench.check("device", about["name"], about["kind"] == bench.kind or bench.dry, bench.kind)
    bench.show("memory, GB", about["memory_gb"])
    bench.show("torch", doctor["versions"]["torch"])
    measured = doctor["measured"] or {}
    for compute, flops in measured.get("peak_flops", {}).items():
        bench.show(f"matmul, {compute}, TFLOP/s", flops / 1e12)
    bench.show("copy, GB/s read and written", measured.get("memory_gb_per_second"))
    for gap in doctor["not_measured"]:
        bench.show(f"not measured: {gap['what']}", gap["why"])


def energy(bench: Bench) -> None:
    """Hold the energy that a meter counts against power, read ten times a second, times time."""
    import torch

    from lmexp.cost.device import detect
    from lmexp.cost.energy import open_meter

    meter = open_meter(detect(bench.kind), 0, None, shares_machine=False)
    if bench.dry:
        bench.show("source", meter.source)
        return
    joules, powers = _measured_beside(meter, torch.device(bench.kind), seconds=6.0)
    bench.show("mean power, W", sum(powers) / len(powers))
    by_power = 6.0 * sum(powers) / len(powers)
    bench.check("counted / power x time", joules / by_power, 0.9 < joules / by_power < 1.1, "0.9 to 1.1")


def _measured_beside(meter: object, place: object, seconds: float) -> tuple[float, list[float]]:
    """Multiply matrices for so long; return the joules that the meter counted, and samples of power in W."""
    import pynvml
    import torch

    pynvml.nvmlInit()
    uuid = torch.cuda.get_device_properties(0).uuid
    handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    powers: list[float] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.1):
            powers.append(pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3)

    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    warm = time.monotonic()
    while time.monotonic() - warm < 2.0:
        matrix @ matrix
        torch.cuda.synchronize()
    thread = threading.Thread(target=sample)
    thread.start()
    before, started = meter.joules(), time.monotonic()  # type: ignore[attr-defined]
    while time.monotonic() - started < seconds:
        matrix @ matrix
        torch.cuda.synchronize()
    joules = meter.joules() - before  # type: ignore[attr-defined]
    joules *= seconds / (time.monotonic() - started)
    done.set()
    thread.join()
    return joules, powers
