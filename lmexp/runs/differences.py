"""What the configs of runs differ in: the keys that tell runs of one name apart."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmexp.config.flat import flat
from lmexp.config.yaml_files import read_yaml
from lmexp.errors import UserError
from lmexp.runs.directory import RunDir

LEFT_OUT = ("schema_version", "run", "logger", "launcher")
"""Sections of a config that do not say what was trained."""


def flat_config(run: RunDir) -> dict[str, Any]:
    """Return what a run trains as dotted keys (`optim.lr`) with their values; empty if its config cannot be read."""
    try:
        config = read_yaml(run.path / "config.yaml")
    except UserError:
        return {}
    if not isinstance(config, dict):
        return {}
    return dict(flat({key: value for key, value in config.items() if key not in LEFT_OUT}))


def distinguishing_keys(keys: Sequence[str], cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return those of the keys that are needed to tell the cells apart.

    A key is not needed if the keys before it determine its value, as when one setting follows from another.
    """
    kept: list[str] = []
    groups = 1
    for key in keys:
        finer = len({tuple(str(cell.get(name)) for name in [*kept, key]) for cell in cells})
        if finer > groups:
            kept, groups = [*kept, key], finer
    return kept


def differences(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each flat config the keys, with their values, that tell it from the others; empty for equal ones."""
    keys = distinguishing_keys(list(dict.fromkeys(key for config in configs for key in config)), configs)
    return [{key: config.get(key) for key in keys} for config in configs]
