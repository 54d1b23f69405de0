"""From a config back to the words that compose it: the way that compose.py goes, in reverse.

A run directory holds a resolved config, not the command that made it. For each group the choice is taken that
differs least, and what still differs is set key by key.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmexp.config.flat import flat
from lmexp.config.overrides import written
from lmexp.config.paths import CONF, group_choices
from lmexp.config.schema import RunConfig
from lmexp.config.yaml_files import read_yaml

GROUPS = ("model", "data", "tokenizer", "task", "optim", "schedule", "precision")
"""The groups whose choice shapes a run."""
FILLED_IN = (
    *("vocab_size", "input_vocab_size", "fingerprint", "stop_words_fingerprint", "labels", "size", "run_id"),
    "lr_rule",
)
"""Keys that are null in words and filled in when a config is resolved."""
ELSEWHERE = ("hardware", "run", "logger", "launcher", "code", "schema_version")
"""Sections that are the machine's or lmexp's own."""

Plain = dict[str, Any]


def words_of(config: RunConfig, roots: Sequence[Path]) -> list[str]:
    """Return overrides that compose to `config`, but for what resolving fills in and what is the machine's own.

    `roots` are searched for choices in their order, as composing does.
    """
    wanted = config.model_dump(mode="json", by_alias=True)
    changed = dict(flat(config.model_dump(mode="json", by_alias=True, exclude_defaults=True)))
    base = _read(next(file for root in roots if (file := root / CONF / "config.yaml").is_file()))
    usual = {group: choice for entry in base.pop("defaults") if entry != "_self_" for group, choice in entry.items()}
    words, given = [], {key: value for key, value in base.items() if key != "sweep"}
    for group, choice in usual.items():
        choices = group_choices(group, list(roots))
        if group in GROUPS:
            contents = {name: _content(name, choices) for name in choices}
            nearest = min(contents, key=lambda name: _distance(contents[name], wanted[group], name))
            words += [f"{group}={nearest}"] if nearest != choice else []
            choice = nearest
        given[group] = _content(choice, choices)
    have = dict(flat(given))
    for section, value in wanted.items():
        if isinstance(value, dict) and given.get(section, value) is None:  # a section that is absent by default
            words.append(f"{section}={written(_without_null(value))}")
            wanted = wanted | {section: None}
    for key, value in flat(wanted):
        if key.split(".")[0] in ELSEWHERE:
            continue
        if key not in have:
            words += [f"+{key}={written(value)}"] if key in changed and not _is_filled_in(key, None) else []
        elif not _same(have[key], value) and not _is_filled_in(key, have[key]):
            words.append(f"{key}={written(value)}")
    return words


def _without_null(section: Plain) -> Plain:
    return {key: value for key, value in section.items() if value is not None}


def _is_filled_in(key: str, given: Any) -> bool:
    return given is None and key.rsplit(".", 1)[-1] in FILLED_IN


def _distance(content: Plain, wanted: Plain, name: str) -> tuple[int, int]:
    """Return how far a choice is from a section: keys that differ, then how few agree; a key left open is neither."""
    ours = dict(flat(wanted))
    told = {key: value for key, value in flat(content) if value not in (None, "???") and key != "name"}
    agree = sum(key in ours and _same(value, ours[key]) for key, value in told.items())
    return len(told) - agree, -agree - (name == wanted.get("name"))


def _same(said: Any, value: Any) -> bool:
    """Whether a value of a YAML file is that of a config; YAML takes 1e-3 for a word."""
    if isinstance(said, list) and isinstance(value, list):
        return len(said) == len(value) and all(map(_same, said, value))
    if isinstance(said, bool) or isinstance(value, bool) or not isinstance(value, int | float):
        return bool(said == value)
    try:
        return float(said) == float(value)
    except (TypeError, ValueError):
        return False


def _content(name: str, choices: Mapping[str, Path]) -> Plain:
    """Return a choice's content over that of the choices in its `defaults` list, as Hydra would compose them."""
    own = _read(choices[name])
    bases = [base for base in own.pop("defaults", []) if isinstance(base, str) and base != "_self_"]
    merged: Plain = {}
    for base in bases:
        merged |= _content(base, choices) if base in choices and base != name else {}
    return merged | own


def _read(file: Path) -> Plain:
    return read_yaml(file) or {}
