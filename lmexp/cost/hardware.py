"""The hardware table: conf/hardware/ has one small file for each device, with its dense peaks and their sources.

It is read without Hydra and without torch, so that a plan or a report can use it anywhere. A file says which devices it
describes by patterns for their names, as in a shell. The files of the user come before those that lmexp ships.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lmexp.config.paths import group_choices, shipped_root
from lmexp.config.schema import HardwareConfig
from lmexp.config.yaml_files import read_yaml
from lmexp.cost.device import Device
from lmexp.errors import UserError, nearest

AUTO, MEASURED = "auto", "measured"
GIVEN = "the config"
"""The source of a value that the user set without naming a source."""


def known_hardware(roots: Sequence[Path] | None = None) -> dict[str, HardwareConfig]:
    """Return the hardware files of the roots by name [default: those that lmexp ships].

    A file of an earlier root hides one of the same name in a later root. Raises UserError for a wrong file.
    """
    files = group_choices("hardware", list(roots or [shipped_root()]))
    return dict(_read(tuple((name, file, file.stat().st_mtime_ns) for name, file in files.items())))


def hardware_named(name: str, roots: Sequence[Path] | None = None) -> HardwareConfig:
    """Return the hardware file of a name. Raises UserError, with similar names, if there is none."""
    known = {key: value for key, value in known_hardware(roots).items() if key not in (AUTO, MEASURED)}
    if name in known:
        return known[name]
    containing = [key for key in known if name and name.lower() in key]
    similar = f" Did you mean {', '.join(containing)}?" if containing else nearest(name.lower(), known)
    raise UserError(f"there is no hardware '{name}'.{similar} `lmexp list hardware` shows them")


def hardware_of(config: HardwareConfig, device: Device, roots: Sequence[Path] | None = None) -> HardwareConfig:
    """Return the config itself, or for `hardware=auto` the description of the device.

    That is the file whose patterns match the name of the device, or `measured` if none does, with the values that the
    config sets besides. A peak or a price that the config sets has the config as its source.
    Raises UserError if several files of one root match.
    """
    if config.name != AUTO:
        return config
    return with_given(_file_for(device, list(roots or [shipped_root()])), config)


def with_given(described: HardwareConfig, config: HardwareConfig) -> HardwareConfig:
    """Return a description with the values that a config sets itself; their source is then the config."""
    given = {key: value for key, value in config if key != "name" and value not in (None, [], {})}
    for value, source in (("peak_flops", "peak_source"), ("dollars_per_hour", "price_source")):
        if value in given:
            given.setdefault(source, GIVEN)
    return described.model_copy(update=given)


def hardware_here(config: HardwareConfig, device: Device) -> HardwareConfig:
    """Return the hardware that the config of a run names, or what this device is if the config names another."""
    hardware = hardware_of(config, device)
    if fits(hardware, device):
        return hardware
    # The run directory is from another machine, or the config describes a part of a device.
    return hardware_of(HardwareConfig(dollars_per_hour=config.dollars_per_hour, watts=config.watts), device)


def fits(hardware: HardwareConfig, device: Device) -> bool:
    """Whether a description is for this device; without patterns it is for any."""
    return not hardware.match or matches(hardware, device.name)


def peak_of(hardware: HardwareConfig, compute: str) -> tuple[float, str] | None:
    """Return the dense peak of one device for a compute type, in FLOP/s, and its source; None if there is none."""
    flops = {str(key): value for key, value in hardware.peak_flops.items()}.get(compute)
    return None if flops is None else (flops, hardware.peak_source or GIVEN)


def matches(hardware: HardwareConfig, name: str) -> bool:
    """Whether one of the patterns matches the name that a driver reports for a device."""
    return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in hardware.match)


def _file_for(device: Device, roots: list[Path]) -> HardwareConfig:
    """Return the file that matches the device, from the first root that has one; else `measured`."""
    known = known_hardware(roots)
    for root in roots:
        names = group_choices("hardware", [root])
        fitting = [name for name in names if matches(known[name], device.name)]
        if len(fitting) > 1:
            first, second = fitting[:2]
            raise UserError(
                f"{device.name} fits hardware={first} and hardware={second}: choose one, or make their match stricter"
            )
        if fitting:
            return known[fitting[0]]
    return known.get(MEASURED, HardwareConfig(name=MEASURED))


@lru_cache(maxsize=8)
def _read(files: tuple[tuple[str, Path, int], ...]) -> dict[str, HardwareConfig]:
    """Read and check files. The cache key has their modification times, so an edited file is read again."""
    paths = {name: file for name, file, _ in files}
    known = {}
    for name, file in paths.items():
        try:
            known[name] = HardwareConfig.model_validate({"name": name} | _composed(name, paths, ()))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise UserError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return known


def _composed(name: str, paths: dict[str, Path], above: tuple[str, ...]) -> dict[str, Any]:
    """Return the content of a file, composed with the files in its `defaults` list as Hydra would do it."""
    file = paths[name]
    own = read_yaml(file) or {}
    if not isinstance(own, dict):
        raise UserError(f"{file}: a hardware file is a mapping of keys to values")
    merged: dict[str, Any] = {}
    content = {key: value for key, value in own.items() if key != "defaults"}
    defaults = own.get("defaults") or []
    if not isinstance(defaults, list) or not all(isinstance(base, str) for base in defaults):
        raise UserError(f"{file}: its defaults are a list of names, as in [h100_sxm, _self_]")
    for base in defaults if "_self_" in defaults else [*defaults, "_self_"]:
        if base in above or base == name:
            raise UserError(f"{file}: its defaults lead back to {base}")
        if base != "_self_" and base not in paths:
            raise UserError(f"{file}: there is no hardware '{base}'.{nearest(base, paths)}")
        layer = content if base == "_self_" else _composed(base, paths, (*above, name))
        peaks = {**(merged.get("peak_flops") or {}), **(layer.get("peak_flops") or {})}
        merged |= layer | ({"peak_flops": peaks} if peaks else {})
    return merged
