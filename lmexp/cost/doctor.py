"""The doctor: what this machine has, how fast it is, and what cannot be measured on it.

Its answer is plain JSON. The peaks it measures are kept in `<outputs>/.doctor.json`, by device: they are
the yardstick for MFU where no datasheet names one.
"""

import importlib.metadata
import math
import netrc
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil
import yaml

import lmexp
from lmexp.config.paths import group_choices, shipped_root
from lmexp.config.schema import PrecisionConfig
from lmexp.cost.device import Device, cores, detect, slow_precision, unsupported_precision
from lmexp.errors import reason_of
from lmexp.files import read_json, write_json

PEAKS_FILE = ".doctor.json"
MATMUL_SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192), "mps": (2048, 4096)}
"""Square sizes. The best counts: small ones fit the caches, large ones hide the start of a kernel."""
MATMUL_SECONDS = 3.0
COPY_SECONDS = 0.7
COPY_BYTES = 256 * 2**20
"""Copied to measure memory: several times the last-level cache of common machines."""
EXTRAS = {
    "wandb": "wandb",
    "tensorboard": "tensorboard",
    "mlflow": "mlflow-skinny",
    "submitit": "submitit",
    "ray": "ray",
    "optuna": "optuna",
    "torchao": "torchao",
    "pynvml": "nvidia-ml-py",
}
"""What lmexp can do more with, by import name, each with the package that brings it."""

Result = dict[str, Any]
K = TypeVar("K")


def examine(outputs: Path, quick: bool = False) -> Result:
    """Return what this machine has and can do, as plain JSON; takes under ten seconds.

    Units: FLOP/s, and GB of 1e9 bytes. `quick` measures nothing and shows the peaks measured before.
    Nothing raises: what fails is said in its place.
    """
    device = detect()
    store = _outputs(outputs)
    known = _read_peaks(outputs).get(device.name)
    gaps = _not_measured(device)
    if not quick:
        try:
            known = _measure(device)
            if store["writable"]:
                write_json(outputs / PEAKS_FILE, {**_read_peaks(outputs), device.name: known})
        except (RuntimeError, OSError) as error:  # a device that others have filled, a full disk
            gaps.append({"what": "peaks", "why": reason_of(error)})
    return {
        "versions": _versions(),
        "device": asdict(device),
        "cpu": _cpu(),
        "gpus": _gpus(),
        "driver": _driver(),
        "precisions": {preset.name: _precision(preset, device, known) for preset in _presets()},
        "measured": known,
        "outputs": store,
        "extras": {name: _version(package) for name, package in EXTRAS.items()},
        "wandb_login": _wandb_login(),
        "not_measured": gaps,
    }


def cached_peaks(outputs: Path) -> dict[str, dict[str, float]]:
    """Return the matmul peaks measured here before, in FLOP/s: by device name, then by compute type.

    A CPU's peak is that of all the cores in its name.
    """
    return {name: dict(known["peak_flops"]) for name, known in _read_peaks(outputs).items()}


def _read_peaks(outputs: Path) -> Result:
    try:
        known: Result = read_json(outputs / PEAKS_FILE)
        return {name: entry for name, entry in known.items() if entry["peak_flops"]}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):  # no file, or not one of ours
        return {}


# what is measured


def _measure(device: Device) -> Result:
    """Measure each type that a preset multiplies in and that runs here, and the memory."""
    import torch

    runnable = {p.compute for p in _presets() if unsupported_precision(p, device) is None}
    return {
        "peak_flops": matmul_peaks(sorted(runnable), device),
        "memory_gb_per_second": memory_bandwidth(device),
        "memory_method": f"copy of {COPY_BYTES / 1e6:.0f} MB, bytes read and written",
        "threads": torch.get_num_threads(),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def matmul_peaks(computes: Sequence[str], device: Device) -> dict[str, float]:
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
        seconds = _fastest_seconds(products, device, MATMUL_SECONDS)
    finally:
        torch.set_float32_matmul_precision(before)
    return {compute: max(2 * n**3 / seconds[compute, n] for n in sizes) for compute in computes}


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


# what is found


def _presets() -> list[PrecisionConfig]:
    files = group_choices("precision", [shipped_root()]).values()
    found = [PrecisionConfig.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files]
    order = ["fp32", "tf32", "bf16", "bf16_true", "fp16"]
    return sorted(found, key=lambda preset: order.index(preset.name))


def _precision(preset: PrecisionConfig, device: Device, known: Result | None) -> Result:
    """Say whether a preset runs here, and how fast it multiplies."""
    reason = unsupported_precision(preset, device)
    peaks = known["peak_flops"] if known and reason is None else {}
    peak, fp32 = peaks.get(preset.compute), peaks.get("fp32")
    return {
        "available": reason is None,
        "reason": reason,
        "warning": slow_precision(preset, device),
        "compute": preset.compute,
        "peak_flops": peak,
        "ratio_to_fp32": peak / fp32 if peak and fp32 else None,
    }


def _versions() -> Result:
    packages = {"torch": "torch", "lightning": "pytorch-lightning", "hydra": "hydra-core"}
    return {
        "lmexp": lmexp.__version__,
        "python": platform.python_version(),
        **{name: _version(package) for name, package in packages.items()},
    }


def _version(package: str) -> str | None:
    """Return an installed package's version; MLflow comes whole or as its skinny client."""
    for name in (package, package.removesuffix("-skinny")):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _cpu() -> Result:
    import torch

    cpu = detect("cpu")
    return {
        "name": cpu.name,
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": cpu.memory_gb,
        "memory_free_gb": psutil.virtual_memory().available / 1e9,
        "native_bf16": cpu.native_bf16,
    }


def _gpus() -> list[Result]:
    import torch

    found = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
    return [
        {"name": gpu.name, "memory_gb": gpu.total_memory / 1e9, "capability": [gpu.major, gpu.minor]} for gpu in found
    ]


def _driver() -> str | None:
    """Return the line in which NVIDIA's kernel driver says its version."""
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return None


def _outputs(outputs: Path) -> Result:
    """Say whether runs can be written to, and how much space is left."""
    try:
        outputs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=outputs):
            pass
        reason = None
    except OSError as error:
        reason = reason_of(error)
    there = next((folder for folder in (outputs, *outputs.absolute().parents) if folder.is_dir()), None)
    return {
        "path": str(outputs),
        "writable": reason is None,
        "reason": reason,
        "free_gb": shutil.disk_usage(there).free / 1e9 if there else None,
    }


def _wandb_login() -> bool:
    """Whether W&B would find credentials, without reading more of them than that."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        import wandb

        server = os.environ.get("WANDB_BASE_URL") or str(wandb.Settings().base_url)
        file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
        return netrc.netrc(file).authenticators(urlsplit(server).hostname or "") is not None
    except (ImportError, OSError, netrc.NetrcParseError):
        return False


def _not_measured(device: Device) -> list[Result]:
    """Say which columns of a record stay empty here, and why."""
    found = []
    why = _why_no_energy(device)
    if why:
        found.append({"what": "energy_kwh", "why": why})
    if device.kind == "cpu":
        found.append(
            {
                "what": "reserved_memory_gb",
                "why": "no allocator to ask on a CPU; peak_memory_gb is the growth of the process there",
            }
        )
    return found


def _why_no_energy(device: Device) -> str | None:
    """Return why no energy counter can be read, or None."""
    if device.kind == "cuda":
        return None if _version("nvidia-ml-py") else "no NVML: pip install nvidia-ml-py"
    counters = list(Path("/sys/class/powercap").glob("intel-rapl*/energy_uj"))
    if not counters:
        return "no GPU counter (NVML), and this kernel shows no CPU counter (RAPL)"
    if not any(os.access(counter, os.R_OK) for counter in counters):
        return f"the CPU counter (RAPL) is there, but {counters[0]} is readable by root only"
    return None
