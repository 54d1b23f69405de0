"""What only the user may say: the rule, and what it applies to.

A run directory or a sweep file from somebody else is data. It can be trained, read and reported on; what would let it
act beyond that is taken from the user alone, which means from

- the overrides on the command line;
- the YAML files in the user's own conf/ and sweeps/ (the current folder, or --config-dir);
- installed plug-ins (entry points of the group `lmexp.plugins`) and what lmexp ships;
- names given by `--trust NAME`, or by the environment variable LMEXP_TRUST (names joined by colons).

The rule holds for

- code: every `_target_`. A name allows everything that is defined inside it: `--trust my_study` allows
  `my_study.models.RWKV`, but not what a module of it has merely imported, as in `my_study.models.os.system`, unless it
  is allowed by this very name. A package beside the user's conf/ that one of these files names is the user's own;
- code that comes with a pretrained model: `trust_remote_code`; a file that names the model allows it for this model;
- shell lines, addresses and a scheduler's options: the keys in SETTINGS, by their values;
- variables of the environment, as in `${oc.env:HOME}`: `oc.env`, or `oc.env.HOME` for one of them;
- links in a run directory that lead out of the outputs, which lmexp would write through: the folder that they lead to.

lmexp's own models and tasks, and torch's optimizers, need no trust. What is not allowed is refused before anything is
imported, started, sent or written.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lmexp.config.paths import CONF, PLUGINS, SWEEPS, plugin_roots, shipped_root
from lmexp.config.yaml_files import read_yaml
from lmexp.errors import UserError
from lmexp.files import read_bytes

TRUST_VARIABLE, PATH_VARIABLE = "LMEXP_TRUST", "LMEXP_CODE_PATH"
"""Environment variables by which a coordinator tells its workers what is trusted, and in which folder it lies."""
REMOTE_CODE = "trust_remote_code"
"""Key by which a config lets code run that comes with a pretrained model; it is trusted by this name."""
ENVIRONMENT = "oc.env"
"""The interpolation that reads a variable of the environment; it is trusted by this name, or with the variable's."""
SETTINGS = {
    "launcher.setup": "shell lines that a job runs",
    "launcher.options": "options of a scheduler, which can name programs and files",
    "launcher.address": "an address to connect to",
    "logger.uri": "an address to send data to",
}
"""Keys of a config whose values only the user may say, and what they are; each is trusted by its name."""
SHIPPED = re.compile(r"lmexp\.(models|tasks)\.[\w.]+|torch\.optim\.[A-Z]\w*")
"""Targets that anybody's config may name: what they can be is checked once they are imported."""
_VARIABLE = re.compile(r"oc\.env\s*:\s*['\"]?([^'\",{}$\s]+)")
_MARKS = ("_target_", REMOTE_CODE, ENVIRONMENT, *(key.split(".")[1] for key in SETTINGS))
"""A text that has something for this module to check holds one of these."""


@dataclass(frozen=True)
class Trust:
    """What the user of this process allows."""

    names: frozenset[str] = frozenset()
    """Names as `--trust` takes them; a setting with a value, `logger.uri=http://here`, allows this value only."""
    given: Path | None = None
    """The user's own folder, if it is not the current one."""

    @property
    def folder(self) -> Path:
        """The user's own folder: its conf/ and sweeps/ may name code, and its modules can be imported.

        A notebook may change the current folder between two calls, so that is not kept.
        """
        return self.given or Path.cwd()

    def allows(self, target: str) -> bool:
        """Whether a target may be imported. Reads the user's YAML files, and imports nothing."""
        if target.startswith(REMOTE_CODE):  # a dot in a model's name does not lead into it, as it does in a module's
            return bool({target, REMOTE_CODE} & self.everything())
        return is_shipped(target) or is_within(target, self.names) or is_within(target, self.everything())

    def everything(self) -> frozenset[str]:
        """Return all names of code that are allowed, besides lmexp's own; each allows what is inside it."""
        return self.names | _plugin_modules() | _code_named_in(self.folder)

    def allows_exactly(self, target: str) -> bool:
        """Whether the user has written this very name."""
        return target in self.names or target in _code_named_in(self.folder)

    def allows_setting(self, key: str, value: str) -> bool:
        """Whether a key in SETTINGS may have a value."""
        if self.names & {key, f"{key}={value}"}:
            return True
        last = key.split(".")[1]
        return any((last, value) in settings_in(content) for content in self._own_files())

    def allows_variable(self, name: str) -> bool:
        """Whether a variable of the environment may be read."""
        if self.names & {ENVIRONMENT, f"{ENVIRONMENT}.{name}"}:
            return True
        return any(name in variables_in(content) for content in self._own_files())

    def allows_folder(self, path: Path) -> bool:
        """Whether links of a run may lead to a path."""
        return any(path.is_relative_to(name) for name in self.names if name.startswith("/"))

    def _own_files(self) -> Iterator[Any]:
        """Yield the contents of the YAML files that speak for the user."""
        for root in [self.folder, *plugin_roots(), shipped_root()]:
            yield from _marked_files(root)


_TRUST: ContextVar[Trust | None] = ContextVar("trust", default=None)


def current_trust() -> Trust:
    """Return what the user of this process allows: by the environment, until `allow` adds to it."""
    known = _TRUST.get()
    if known is not None:
        return known
    names = [unquote(name) for name in os.environ.get(TRUST_VARIABLE, "").split(":") if name]
    return Trust(frozenset(names), Path(path) if (path := os.environ.get(PATH_VARIABLE)) else None)


def allow(names: Iterable[str] = (), folder: Path | None = None) -> None:
    """Add what the user has said: names to allow, the folder that is theirs. Never pass what a run or a sweep says."""
    known = current_trust()
    _TRUST.set(replace(known, names=known.names | frozenset(names), given=folder or known.given))


@contextmanager
def trusting(names: Iterable[str] = (), folder: Path | None = None) -> Iterator[None]:
    """Allow names within a `with` block only."""
    token = _TRUST.set(current_trust())
    try:
        allow(names, folder)
        yield
    finally:
        _TRUST.reset(token)


def code_environment() -> dict[str, str]:
    """Return the environment variables that give a worker process the trust of this one."""
    trust = current_trust()
    names = [name.replace("%", "%25").replace(":", "%3A") for name in sorted(trust.names)]
    return ({TRUST_VARIABLE: ":".join(names)} if names else {}) | {PATH_VARIABLE: str(trust.folder)}


def concerns(text: str) -> bool:
    """Whether there may be anything in an override, or in a YAML file, that only the user may say."""
    return any(mark in text for mark in _MARKS)


def is_shipped(target: str) -> bool:
    """Whether a target belongs to lmexp or is an optimizer of torch's."""
    return SHIPPED.fullmatch(target) is not None


def is_within(target: str, names: Iterable[str]) -> bool:
    """Whether a dotted name is one of `names`, or inside one."""
    return any(target == name or target.startswith(f"{name}.") for name in names)


def check_trusted(target: str, key: str = "_target_") -> None:
    """Raise UserError when the user has not allowed a target, which stands under `key`. Imports nothing."""
    if current_trust().allows(target):
        return
    if target.startswith(REMOTE_CODE):
        raise UserError(
            f"{REMOTE_CODE} lets code run that comes with a pretrained model, and neither your own configs nor your "
            f"overrides set it for this model; nothing was run. If you trust the model, add --trust {REMOTE_CODE}"
        )
    raise UserError(
        f"{key}={target} is code from outside lmexp, which neither your own configs nor an installed plug-in "
        f"name; nothing of it was imported. If you trust it, add --trust {target.split('.')[0]}"
    )


def check_settings(config: Any, *sections: str) -> None:
    """Raise UserError for a value in SETTINGS that the user has not said.

    Args:
        config: a config as nested mappings; it may come from anywhere.
        sections: the sections to check, those that are about to be used [default: all].
    """
    trust = current_trust()
    for key, value in said_settings(config, *sections):
        if not trust.allows_setting(key, value):
            raise UserError(
                f"{key}={value!r} comes neither from your own configs nor from your overrides. It sets "
                f"{SETTINGS[key]}, so nothing was started or sent. If you trust it, add --trust {key}"
            )


def allow_words(values: dict[str, Any]) -> None:
    """Allow what overrides of the user say: `values` are theirs, by key."""
    settings = settings_in(values)
    keys = {key.split(".")[1]: key for key in SETTINGS}
    allow([*names_of_code(values), *(f"{keys[last]}={value}" for last, value in settings)])
    allow(f"{ENVIRONMENT}.{name}" for name in variables_in(values))


def allow_settings(config: Any) -> None:
    """Allow the values in SETTINGS of a config that was composed from what the user says; its workers need that."""
    allow(f"{key}={value}" for key, value in said_settings(config))


def said_settings(config: Any, *sections: str) -> Iterator[tuple[str, str]]:
    """Yield the keys in SETTINGS that a config, as nested mappings, sets, each with its value, a line or an option."""
    for key in SETTINGS:
        section, name = key.split(".")
        content = config.get(section) if not sections or section in sections else None
        if isinstance(content, dict) and "_target_" not in content:  # that of code is the code's own matter
            yield from ((key, value) for _, value in sorted(settings_in({name: content.get(name)})))


def settings_in(node: Any) -> set[tuple[str, str]]:
    """Return the values that nested mappings and lists give to keys in SETTINGS, by the last part of the key.

    A file of a group leaves the section out (`uri: ...`), and an axis names it (`logger.uri: [...]`).
    """
    names = {key.split(".")[1] for key in SETTINGS}
    values = set()
    for path, value in _leaves(node):
        *above, last = ("", *path)
        if last in names and value is not None:
            values.add((last, str(value)))
        elif above[-1] == "options":
            values.add(("options", f"{last}={value}"))
    return values


def variables_in(node: Any) -> set[str]:
    """Return the variables of the environment that texts in nested mappings and lists read."""
    return {name for _, value in _leaves(node) if isinstance(value, str) for name in _VARIABLE.findall(value)}


def check_variable(name: str) -> None:
    """Raise UserError when the user names a variable of the environment nowhere."""
    if not current_trust().allows_variable(name):
        raise UserError(
            f"${{{ENVIRONMENT}:{name}}} reads a variable of your environment, which neither your own configs nor your "
            f"overrides name; it was not read. If you trust the file, add --trust {ENVIRONMENT}.{name}"
        )


def names_of_code(node: Any) -> Iterator[str]:
    """Yield what nested mappings and lists name as code: see targets_in, and REMOTE_CODE where that is set.

    With the model beside it, the latter is `trust_remote_code=NAME`.
    """
    if isinstance(node, dict):
        model = node.get("pretrained")
        of_model = f"={model}" if isinstance(model, str) and model != "???" and "${" not in model else ""
        for key, value in node.items():
            last = str(key).rpartition(".")[2]
            if last == "_target_":
                yield from (one for one in _listed(value) if isinstance(one, str))
            elif last == REMOTE_CODE:
                yield from (f"{REMOTE_CODE}{of_model}" for one in _listed(value) if one not in (None, False))
            elif isinstance(value, dict | list | tuple):  # a leaf is not worth a call: there are hundreds
                yield from names_of_code(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from names_of_code(value)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def targets_in(node: Any) -> Iterator[str]:
    """Yield every value of a key `_target_` in nested mappings and lists; `optim._target_` is one too."""
    return (name for name in names_of_code(node) if not name.startswith(REMOTE_CODE))


def _leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the values in nested mappings and lists, each with the parts of its dotted key."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, (*path, *str(key).split(".")))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _leaves(value, path)
    else:
        yield path, node


def _plugin_modules() -> set[str]:
    return {point.module.split(".")[0] for point in entry_points(group=PLUGINS)}


def _code_named_in(folder: Path) -> set[str]:
    """Return the targets that the YAML files of the user's folder name, and the folder's own packages among them.

    A package beside the user's configs is theirs, and allowed whole; of any other, only what is named.
    """
    named = {name for content in _marked_files(folder) for name in names_of_code(content)}
    tops = {name.split(".")[0] for name in named if not is_shipped(name) and not name.startswith(REMOTE_CODE)}
    return named | {top for top in tops if (folder / top).is_dir() or (folder / f"{top}.py").is_file()}


def _marked_files(root: Path) -> Iterator[Any]:
    """Yield the contents of the YAML files under a root's conf/ and sweeps/ that hold one of _MARKS."""
    for file in (file for part in (CONF, SWEEPS) for file in (root / part).rglob("*.yaml")):
        try:
            content = read_bytes(file)
            if concerns(content.decode(errors="replace")):
                yield read_yaml(file)
        except (OSError, UserError):  # composing the file reports what is wrong with it
            continue
