"""The measured peaks of a device: matmul FLOP/s by compute type, and memory speed.

MFU is relative to the measured peak if no datasheet gives one. The doctor measures it, or the first run that needs it,
and `<outputs>/.doctor.json` keeps it: for each device and, on a CPU, for each number of threads.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from lmexp.cost.contention import MAX_WAIT_FRACTION, CpuWait
from lmexp.cost.device import Device
from lmexp.files import read_json, write_json

PEAKS_FILE = ".doctor.json"
MATMUL_SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192), "mps": (2048, 4096)}
"""Sizes of square matrices. The fastest counts: small ones fit into caches, large ones hide the launch of a kernel."""
MATMUL_SECONDS = 3.0
MAX_PRODUCT_SECONDS = 2.0
"""Larger matrices are left out if one product of theirs would take longer. In bf16, torch's own kernels can take half a
minute on a CPU, where cpu_products.py cannot replace them."""
COPY_SECONDS = 0.7
COPY_BYTES = {"cpu": 256 * 2**20, "cuda": 2**30, "mps": 2**30}
"""Size of the copy that measures memory speed: several times the last-level cache of common devices."""
COPIES = {"cpu": 1, "cuda": 16, "mps": 4}
"""Number of copies between two readings of the clock: on a GPU, launching one and waiting for it also takes time."""
MEASURABLE = ("fp32", "tf32", "bf16", "fp16")
"""The compute types of a plain matmul; fp8 would need scales and a special kernel."""

MAX_SPEED = 1e24
"""No device multiplies or copies faster; a larger number in the file is an error."""

Peaks = dict[str, Any]
"""`peak_flops` by compute type, `memory_gb_per_second` with its `memory_method` if it was measured, and `measured`, the
date."""
K = TypeVar("K")


def key_of(device: Device, threads: int) -> str:
    """Return the name under which the peaks of a device are kept."""
    return f"{device.name}, {threads} thread{'s' if threads > 1 else ''}" if device.kind == "cpu" else device.name


def read_peaks(outputs: Path, key: str) -> Peaks:
    """Return the peaks that were measured before; empty if there are none."""
    return _read_all(outputs).get(key, {})


def remember_peaks(outputs: Path, key: str, peaks: Peaks) -> None:
    """Add measured peaks of a device to the file. Raises OSError if it cannot be written."""
    with FileLock(outputs / f"{PEAKS_FILE}.lock"):
        known = _read_all(outputs)
        before = known.get(key, {})
        flops = dict(before.get("peak_flops", {}))
        for compute, peak in peaks["peak_flops"].items():  # other load only slows a device down, so keep the best
            flops[compute] = max(peak, flops.get(compute, 0.0))
        write_json(outputs / PEAKS_FILE, {**known, key: {**before, **peaks, "peak_flops": flops}})


def measured_peak(outputs: Path, device: Device, compute: str, threads: int, measure: bool) -> float | None:
    """Return the matmul FLOP/s of a device: the kept value, or if `measure` a new one; else None.

    A new value is kept unless other programs kept this one waiting for its cores: the next run then measures again.
    """
    if compute not in MEASURABLE:
        return None
    key = key_of(device, threads)
    known: float | None = read_peaks(outputs, key).get("peak_flops", {}).get(compute)
    if known is None and measure:
        wait = CpuWait()
        flops = matmul_peaks([compute], device, seconds=MATMUL_SECONDS / 10)
        if device.kind != "cpu" or (wait.fraction() or 0.0) <= MAX_WAIT_FRACTION:
            remember_peaks(outputs, key, {"peak_flops": flops, "measured": now()})
        known = flops[compute]
    return known


def now() -> str:
    """Return the present time in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def matmul_peaks(computes: Sequence[str], device: Device, seconds: float = MATMUL_SECONDS) -> dict[str, float]:
    """Return the FLOP/s of square matmuls for each of fp32, tf32, bf16, fp16: 2 n^3 over the fastest time.

    bf16 is multiplied as in a run (cpu_products.py). The best over MATMUL_SIZES counts, up to the size whose product
    takes MAX_PRODUCT_SECONDS. Results go to an existing buffer, as in a training step, because with new memory the time
    would include page faults.
    Raises RuntimeError if the device is out of memory.
    """
    import torch

    from lmexp.cost.cpu_products import fast_bf16  # imports torch, which takes seconds

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
        with fast_bf16():
            products: dict[tuple[str, int], Callable[[], None]] = {}
            for compute in computes:
                for n, larger in zip(sizes, [*sizes[1:], math.inf], strict=True):
                    multiply = products[compute, n] = product(compute, n)
                    _seconds_of(multiply, device)  # warm-up
                    if _seconds_of(multiply, device) * (larger / n) ** 3 > MAX_PRODUCT_SECONDS:
                        break
            fastest = _fastest_seconds(products, device, seconds)
    finally:
        torch.set_float32_matmul_precision(before)
    speeds = {key: 2 * key[1] ** 3 / fastest[key] for key in products}
    return {compute: max(speed for key, speed in speeds.items() if key[0] == compute) for compute in computes}


def memory_bandwidth(device: Device) -> float:
    """Return the GB/s (1e9 bytes) of a large copy, counting the bytes read and the bytes written.

    Raises RuntimeError if the device is out of memory.
    """
    import torch

    size, copies = COPY_BYTES[device.kind], COPIES[device.kind]
    source = torch.ones(size, dtype=torch.uint8, device=device.kind)
    target = torch.ones_like(source)  # ones instead of empty, so that its pages exist before the clock starts

    def copy() -> None:
        for _ in range(copies):
            target.copy_(source)

    seconds = _fastest_seconds({"copies": copy}, device, COPY_SECONDS)
    return 2 * size * copies / seconds["copies"] / 1e9


def memory_method(kind: str) -> str:
    """Return how the memory speed of a kind of device is measured, in words that are kept beside it."""
    copies = (
        f"copy of {COPY_BYTES[kind] / 1e6:.0f} MB"
        if COPIES[kind] == 1
        else (f"{COPIES[kind]} copies of {COPY_BYTES[kind] / 1e6:.0f} MB")
    )
    return f"{copies}, bytes read and written"


def _fastest_seconds(actions: Mapping[K, Callable[[], object]], device: Device, budget: float) -> dict[K, float]:
    """Return the fastest time of each action in seconds, over at least three rounds and about `budget` seconds in all.

    The fastest counts, because other load on the machine only slows an action down. The actions take turns, so that a
    change of that load does not change their ratios.
    """
    for action in actions.values():
        _seconds_of(action, device)  # warm-up: compiles kernels and touches the memory
    seconds = dict.fromkeys(actions, math.inf)
    rounds, started = 0, time.perf_counter()
    while rounds < 3 or time.perf_counter() - started < budget:
        for name, action in actions.items():
            seconds[name] = min(seconds[name], _seconds_of(action, device))
        rounds += 1
    return seconds


def _seconds_of(action: Callable[[], object], device: Device) -> float:
    """Return the seconds that an action takes, until the device has done it."""
    import torch

    started = time.perf_counter()
    action()
    if device.kind != "cpu":
        getattr(torch, device.kind).synchronize()
    return time.perf_counter() - started


def _read_all(outputs: Path) -> dict[str, Peaks]:
    """Return the entries of the file that hold peaks; devices whose entry does not are measured again."""
    try:
        known = read_json(outputs / PEAKS_FILE)
    except (OSError, ValueError):  # no such file, or another program wrote it
        return {}
    return {name: entry for name, entry in known.items() if _is_peaks(entry)} if isinstance(known, dict) else {}


def _is_peaks(entry: object) -> bool:
    """Whether an entry has peaks of at least one compute type, and nothing in place of numbers and texts."""
    if not isinstance(entry, dict) or not isinstance(flops := entry.get("peak_flops"), dict):
        return False
    speeds = [*flops.values(), *([entry["memory_gb_per_second"]] if "memory_gb_per_second" in entry else [])]
    texts = [entry[key] for key in ("memory_method", "measured") if key in entry]
    return all(map(_is_speed, speeds)) and all(isinstance(text, str) for text in texts)


def _is_speed(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < MAX_SPEED
