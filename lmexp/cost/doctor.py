"""The doctor: what this machine has, how fast it is, and what cannot be measured on it.

The result is plain JSON. Later runs use the peaks that it measures (peaks.py).
"""

import importlib.metadata
import netrc
import os
import platform
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import psutil
import yaml

import lmexp
from lmexp.config.base import Compute, Dtype
from lmexp.config.paths import group_choices, shipped_root
from lmexp.config.schema import PrecisionConfig
from lmexp.cost.device import Device, cores, detect, slow_precision, unsupported_precision
from lmexp.cost.energy import why_no_energy
from lmexp.cost.peaks import (
    MEASURABLE,
    Peaks,
    key_of,
    matmul_peaks,
    memory_bandwidth,
    memory_method,
    now,
    read_peaks,
    remember_peaks,
)
from lmexp.errors import reason_of

EXTRAS = {
    "wandb": "wandb",
    "tensorboard": "tensorboard",
    "mlflow": "mlflow-skinny",
    "trackio": "trackio",
    "submitit": "submitit",
    "ray": "ray",
    "optuna": "optuna",
    "torchao": "torchao",
    "pynvml": "nvidia-ml-py",
    "lm_eval": "lm_eval",
    "s3fs": "s3fs",
    "gcsfs": "gcsfs",
    "opacus": "opacus",
    "jieba": "jieba",
    "phonenumbers": "phonenumbers",
    "presidio_analyzer": "presidio-analyzer",
    "wandb_workspaces": "wandb-workspaces",
}
"""Optional packages by import name, each with the name under which it is installed."""

Result = dict[str, Any]


def examine(outputs: Path, quick: bool = False) -> Result:
    """Return what this machine has and can do, as plain JSON, in under ten seconds.

    Units are FLOP/s, and GB of 1e9 bytes. With `quick` nothing is measured, and the peaks are those measured before.
    Nothing is raised: if a check fails, the result says why.
    """
    import torch

    device = detect()
    store = _outputs(outputs)
    key = key_of(device, torch.get_num_threads())
    known: Peaks | None = read_peaks(outputs, key) or None
    gaps = _not_measured(device)
    if not quick:
        try:
            known = _measure(device)
            if store["writable"]:
                remember_peaks(outputs, key, known)
        except (RuntimeError, OSError) as error:  # the device is full, or the disk
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


def _measure(device: Device) -> Peaks:
    """Measure the matmul peak of each compute type that runs here, and the memory speed."""
    import torch

    runnable = {p.compute for p in _presets() if unsupported_precision(p, device) is None and p.compute in MEASURABLE}
    return {
        "peak_flops": matmul_peaks(sorted(runnable), device),
        "memory_gb_per_second": memory_bandwidth(device),
        "memory_method": memory_method(device.kind),
        "threads": torch.get_num_threads(),
        "measured": now(),
    }


def _presets() -> list[PrecisionConfig]:
    """Return the precisions that lmexp ships, from the widest type to the narrowest."""
    files = group_choices("precision", [shipped_root()]).values()
    presets = [PrecisionConfig.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))) for file in files]
    # Both list their types from the widest to the narrowest.
    computes, stored = get_args(Compute), get_args(Dtype)
    return sorted(presets, key=lambda preset: (computes.index(preset.compute), stored.index(preset.weights)))


def _precision(preset: PrecisionConfig, device: Device, known: Result | None) -> Result:
    """Return whether a precision runs here, and how fast it multiplies."""
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
    """Return the version of a package, None if it is not installed; MLflow may be the whole package or `-skinny`."""
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

    gpus = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
    return [
        {"name": gpu.name, "memory_gb": gpu.total_memory / 1e9, "capability": [gpu.major, gpu.minor]} for gpu in gpus
    ]


def _driver() -> str | None:
    """Return the first line of the version file of NVIDIA's kernel driver; None without the driver."""
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return None


def _outputs(outputs: Path) -> Result:
    """Return whether the output folder can be written to, and how much space is left."""
    try:
        outputs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=outputs):
            pass
        reason = None
    except OSError as error:
        reason = reason_of(error)
    existing = next((folder for folder in (outputs, *outputs.absolute().parents) if folder.is_dir()), None)
    return {
        "path": str(outputs),
        "writable": reason is None,
        "reason": reason,
        "free_gb": shutil.disk_usage(existing).free / 1e9 if existing else None,
    }


def _wandb_login() -> bool:
    """Whether W&B has credentials; their content is not read."""
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
    """Return which columns of a record stay empty on this device, and why."""
    why = why_no_energy(device)
    return [{"what": "energy_kwh", "why": why}] if why else []
