"""What the device at hand was measured to do: matmul FLOP/s by type, and memory bandwidth.

The yardstick of MFU where no datasheet names one. Measured by the doctor, or by the first run that needs it,
and kept in `<outputs>/.doctor.json`: by device and, on a CPU, by threads, since a run has the peak of its own.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from lmexp.cost.device import Device
from lmexp.files import read_json, write_json

PEAKS_FILE = ".doctor.json"
MATMUL_SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192), "mps": (2048, 4096)}
"""Square sizes. The best counts: small ones fit the caches, large ones hide the start of a kernel."""
MATMUL_SECONDS = 3.0
COPY_SECONDS = 0.7
COPY_BYTES = 256 * 2**20
"""Copied to measure memory: several times the last-level cache of common machines."""
MEASURABLE = ("fp32", "tf32", "bf16", "fp16")
"""What a plain matmul can be measured in; fp8 needs scales and a kernel of its own."""

Peaks = dict[str, Any]
"""`peak_flops` by compute type, and where it was measured `memory_gb_per_second`, with `measured`, a date."""
K = TypeVar("K")


def key_of(device: Device, threads: int) -> str:
    """Return the name under which a device's peaks are kept."""
    return f"{device.name}, {threads} thread{'s' if threads > 1 else ''}" if device.kind == "cpu" else device.name


def read_peaks(outputs: Path, key: str) -> Peaks:
    """Return what was measured before; empty where nothing was."""
    return _read_all(outputs).get(key, {})


def remember_peaks(outputs: Path, key: str, peaks: Peaks) -> None:
    """Add to what is known of a device; raises OSError where it cannot be written."""
    with FileLock(outputs / f"{PEAKS_FILE}.lock"):
        known = _read_all(outputs)
        before = known.get(key, {})
        flops = dict(before.get("peak_flops", {}))
        for compute, found in peaks["peak_flops"].items():  # other load only slows: the best is nearest the truth
            flops[compute] = max(found, flops.get(compute, 0.0))
        write_json(outputs / PEAKS_FILE, {**known, key: {**before, **peaks, "peak_flops": flops}})


def measured_peak(outputs: Path, device: Device, compute: str, threads: int, measure: bool) -> float | None:
    """Return the matmul FLOP/s of a device, from before, or measured now if `measure`; else None."""
    if compute not in MEASURABLE:
        return None
    key = key_of(device, threads)
    known: float | None = read_peaks(outputs, key).get("peak_flops", {}).get(compute)
    if known is None and measure:
        found = matmul_peaks([compute], device, seconds=MATMUL_SECONDS / 10)
        remember_peaks(outputs, key, {"peak_flops": found, "measured": now()})
        known = found[compute]
    return known


def now() -> str:
    """Return the present, in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def matmul_peaks(computes: Sequence[str], device: Device, seconds: float = MATMUL_SECONDS) -> dict[str, float]:
    """Return the FLOP/s of square matmuls for each of fp32, tf32, bf16, fp16: 2 n^3 over the fastest time.

    The best over MATMUL_SIZES counts. Results are written to a buffer that exists, as in a training step:
    fresh memory would measure page faults. Raises RuntimeError when the device is out of memory.
    """
    import torch

    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
    sizes = MATMUL_SIZES[device.kind]

    def product(compute: str, n: int) -> Callable[[], None]:
        dtype = dtypes.get(compute, torch.float32)
        a, b, out = (torch.randn(n, n, device=device.kind).to(dtype) for _ in range(3))

        def multiply() -> None:
            torch.set_float32_matmul_precision("high" if compute == "tf32" else "highest")
            torch.mm(a, b, out=out)

        return multiply

    before = torch.get_float32_matmul_precision()
    try:
        products = {(compute, n): product(compute, n) for compute in computes for n in sizes}
        fastest = _fastest_seconds(products, device, seconds)
    finally:
        torch.set_float32_matmul_precision(before)
    return {compute: max(2 * n**3 / fastest[compute, n] for n in sizes) for compute in computes}


def memory_bandwidth(device: Device) -> float:
    """Return GB/s (1e9 bytes) of a large copy, what is read and what is written both counted.

    Raises RuntimeError when the device is out of memory.
    """
    import torch

    source = torch.ones(COPY_BYTES, dtype=torch.uint8, device=device.kind)
    target = torch.ones_like(source)  # ones, not empty: its pages exist before the clock starts
    seconds = _fastest_seconds({"copy": lambda: target.copy_(source)}, device, COPY_SECONDS)
    return 2 * COPY_BYTES / seconds["copy"] / 1e9


def _fastest_seconds(actions: Mapping[K, Callable[[], object]], device: Device, budget: float) -> dict[K, float]:
    """Return each action's fastest seconds, over at least three times and about `budget` seconds in all.

    The fastest, because other load on the machine only ever slows, and a peak is what the device can do.
    In turn, because that load comes and goes, and their ratios should not follow it.
    """
    import torch

    def timed(action: Callable[[], object]) -> float:
        started = time.perf_counter()
        action()
        if device.kind != "cpu":
            getattr(torch, device.kind).synchronize()
        return time.perf_counter() - started

    for action in actions.values():
        timed(action)  # the first time compiles kernels and touches memory
    seconds = dict.fromkeys(actions, math.inf)
    rounds, started = 0, time.perf_counter()
    while rounds < 3 or time.perf_counter() - started < budget:
        for name, action in actions.items():
            seconds[name] = min(seconds[name], timed(action))
        rounds += 1
    return seconds


def _read_all(outputs: Path) -> dict[str, Peaks]:
    try:
        known = read_json(outputs / PEAKS_FILE)
        return {name: entry for name, entry in known.items() if isinstance(entry["peak_flops"], dict)}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):  # no file, or not one of ours
        return {}
