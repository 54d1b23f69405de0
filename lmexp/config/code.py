"""Code from outside lmexp: who may name it, how it is imported, and how a run remembers its version.

A config names code by `_target_: package.module.Name`. Importing a module runs it, so only the user may say which:

- lmexp's own models and tasks, and torch's optimizers, are always allowed;
- so is the package that an installed plug-in names (entry points of the group `lmexp.plugins`);
- so is every `_target_` that a YAML file in the user's own conf/ or sweeps/, or an override on the command line, names
  (and the whole package, if it lies beside that conf/);
- `trust_remote_code`, which runs code that comes with a pretrained model, counts as such a name;
- so is everything given by `--trust NAME`, or by the environment variable LMEXP_TRUST (names joined by colons).

An allowed name allows everything that is defined inside it: `--trust my_study` allows `my_study.models.RWKV`, but not
what a module of it has merely imported, as in `my_study.models.os.system`, unless it is allowed by this very name. All
else that a run directory or somebody else's sweep file names is refused before anything is imported.
"""

import hashlib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib.metadata import entry_points, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from lmexp.config.base import OutsideSection, Section
from lmexp.config.yaml_files import read_yaml
from lmexp.errors import UserError, nearest, reason_of
from lmexp.files import read_bytes

PLUGINS = "lmexp.plugins"
"""Entry point group of installed packages that bring configs and code."""
TRUST_VARIABLE, PATH_VARIABLE = "LMEXP_TRUST", "LMEXP_CODE_PATH"
"""Environment variables by which a coordinator tells its workers what is trusted, and in which folder it lies."""
REMOTE_CODE = "trust_remote_code"
"""Key by which a config lets code run that comes with a pretrained model; it is trusted by this name."""

Kind = Literal[
    "model", "task", "metric", "optimizer", "schedule", "callback", "source", "tokenizer", "logger", "launcher"
]
BASES: dict[Kind, str] = {
    "model": "torch.nn.Module",
    "task": "lmexp.tasks.base.Task",
    "optimizer": "torch.optim.Optimizer",
    "callback": "pytorch_lightning.Callback",
    "launcher": "lmexp.launch.engine.Engine",
}
"""The class that a target of a kind must derive from; a target of any other kind must be callable."""
SHIPPED = re.compile(r"lmexp\.(models|tasks)\.[\w.]+|torch\.optim\.[A-Z]\w*")
"""Targets that anybody's config may name: what they can be is closed by BASES, whose check follows the import."""


@dataclass(frozen=True)
class Trust:
    """What the user of this process allows."""

    names: frozenset[str] = frozenset()
    """Dotted names; each allows itself and everything inside it."""
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
        return is_shipped(target) or _is_within(target, self.names) or _is_within(target, self.everything())

    def everything(self) -> frozenset[str]:
        """Return all names that are allowed, besides lmexp's own; each allows what is inside it."""
        return self.names | _plugin_modules() | _named_in(self.folder)

    def allows_exactly(self, target: str) -> bool:
        """Whether the user has written this very name."""
        return target in self.names or target in _named_in(self.folder)


_TRUST: ContextVar[Trust | None] = ContextVar("trust", default=None)


def current_trust() -> Trust:
    """Return what the user of this process allows: by the environment, until `allow` adds to it."""
    known = _TRUST.get()
    if known is not None:
        return known
    names = [name for name in os.environ.get(TRUST_VARIABLE, "").split(":") if name]
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
    names = {TRUST_VARIABLE: ":".join(sorted(trust.names))} if trust.names else {}
    return names | {PATH_VARIABLE: str(trust.folder)}


def is_shipped(target: str) -> bool:
    """Whether a target belongs to lmexp or is an optimizer of torch's."""
    return SHIPPED.fullmatch(target) is not None


def check_trusted(target: str, key: str = "_target_") -> None:
    """Raise UserError when the user has not allowed a target, which stands under `key`. Imports nothing."""
    if current_trust().allows(target):
        return
    if target == REMOTE_CODE:
        raise UserError(
            f"{REMOTE_CODE} lets code run that comes with a pretrained model, and neither your own configs nor your "
            f"overrides set it; nothing was run. If you trust the model, add --trust {REMOTE_CODE}"
        )
    raise UserError(
        f"{key}={target} is code from outside lmexp, which neither your own configs nor an installed plug-in "
        f"name; nothing of it was imported. If you trust it, add --trust {target.split('.')[0]}"
    )


def load_target(target: str, kind: Kind) -> Any:
    """Import what a `_target_` names, after checking that the user allows it.

    Raises UserError when it is not allowed, is not there, or is not of its kind.
    """
    check_trusted(target)
    loaded = _import(target, kind)
    _check_origin(target, kind, loaded)
    base = _import(BASES[kind], kind) if kind in BASES else None
    if base is not None and not (isinstance(loaded, type) and issubclass(loaded, base)):
        raise UserError(f"the {kind} {target} must be a class that derives from {BASES[kind]}")
    if base is None and (is_shipped(target) or not callable(loaded)):
        raise UserError(f"the {kind} {target} must be a class or a function of yours")
    return loaded


def _check_origin(target: str, kind: Kind, loaded: Any) -> None:
    """Raise UserError if a trusted module holds what it has imported from a module that is not trusted.

    Otherwise a stranger who knows the name of a trusted package could call `my_study.data.subprocess.run`.
    """
    trust, origin = current_trust(), getattr(loaded, "__module__", None)
    if is_shipped(target) or trust.allows_exactly(target):
        return
    if not (isinstance(origin, str) and trust.allows(f"{origin}.{target.split('.')[-1]}")):
        raise UserError(
            f"the {kind} {target} is defined in {origin or 'no module'}, which is not trusted, and was only imported "
            f"there. If you trust it, add --trust {target}"
        )


def arguments_of(section: OutsideSection, loaded: Any) -> dict[str, Any]:
    """Return the keyword arguments for what a section names: its keys, checked by the code's own section if it has one.

    That is a class attribute `Config` that derives from Section. Raises UserError for a key or a value that it refuses.
    """
    own = getattr(loaded, "Config", None)
    if not (isinstance(own, type) and issubclass(own, Section)):
        return section.arguments
    try:
        return own.model_validate(section.arguments).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{section.target}: {key}={first['input']!r}: {first['msg']}") from None


def call_target(section: OutsideSection, kind: Kind, *given: Any, **named: Any) -> Any:
    """Import what a section names, and call it with `given`, `named` and the section's own keys.

    Raises UserError as load_target does.
    """
    loaded = load_target(section.target, kind)
    return loaded(*given, **named, **arguments_of(section, loaded))


def check_call(section: OutsideSection, kind: Kind, given: Sequence[str] = (), named: Sequence[str] = ()) -> None:
    """Raise UserError when what a section names cannot be called as lmexp calls it.

    Calls nothing, so that a mistyped key is known before a run starts.

    Args:
        given: what lmexp passes by position, in words for the message.
        named: the keyword arguments that lmexp passes besides the section's keys.
    """
    loaded = load_target(section.target, kind)
    keys = arguments_of(section, loaded)
    try:
        signature = inspect.signature(loaded)
    except ValueError:  # a class written in C may not say
        return
    try:
        signature.bind(*given, **dict.fromkeys(named), **keys)
    except TypeError as error:
        unknown = [key for key in keys if key not in signature.parameters]
        hint = nearest(unknown[0], signature.parameters) if unknown else ""
        call = f"{section.target.split('.')[-1]}({', '.join([*given, *(f'{key}=...' for key in (*named, *keys))])})"
        raise UserError(f"the {kind} {section.target}: {error}.{hint} lmexp calls {call}") from None


def names_of_code(node: Any) -> Iterator[str]:
    """Yield what nested mappings and lists name as code: see targets_in, and REMOTE_CODE where that is set."""
    if isinstance(node, dict):
        for key, value in node.items():
            last, values = str(key).split(".")[-1], value if isinstance(value, list) else [value]
            if last == "_target_":
                yield from (one for one in values if isinstance(one, str))
            elif last == REMOTE_CODE:
                yield from (REMOTE_CODE for one in values if one not in (None, False))
            else:
                yield from names_of_code(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from names_of_code(value)


def targets_in(node: Any) -> Iterator[str]:
    """Yield every value of a key `_target_` in nested mappings and lists; `optim._target_` is one too."""
    return (name for name in names_of_code(node) if name != REMOTE_CODE)


class CodeVersion(Section):
    """Which version of some code from outside lmexp a run uses."""

    package: str | None = None
    """The installed package that it belongs to; null for a file in the user's folder."""
    version: str | None = None
    """That package's version."""
    sha256: str
    """Hash of the code: of the module's file, or, in the user's own folder, of all Python files of its package."""


def code_version(target: str) -> CodeVersion:
    """Return the version of a target's code as it lies on the disk now, without importing it.

    Raises UserError when it is not there.
    """
    top = target.split(".")[0]
    package = next(iter(packages_distributions().get(top, [])), None)
    total = hashlib.sha256()
    for name, file in _files(target, whole=package is None):
        total.update(f"{name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return CodeVersion(package=package, version=version(package) if package else None, sha256=total.hexdigest())


def _files(target: str, whole: bool) -> list[tuple[str, Path]]:
    """Return the Python files of a target's top package (`whole`) or of its module alone, each with its name."""
    top, *parts = target.split(".")
    _add_folder()
    spec = find_spec(top)
    if spec is None:
        raise UserError(f"{target}: there is no module {top}{_where()}")
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    if not folders:
        return [(top, Path(spec.origin))] if spec.origin and Path(spec.origin).is_file() else []
    files = sorted((file.relative_to(folder).as_posix(), file) for folder in folders for file in folder.rglob("*.py"))
    if whole:
        return files
    modules = {"/".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return [(name, file) for name, file in files if name.removesuffix(".py").removesuffix("/__init__") in modules]


def _import(target: str, kind: Kind) -> Any:
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target):
        raise UserError(f"the {kind} {target!r} is no dotted name, as in package.module.Name")
    _add_folder()
    module, rest = _import_module(target.split("."), kind)
    loaded: Any = module
    for name in rest:
        if not hasattr(loaded, name):
            raise UserError(f"the {kind} {target}: {module.__name__} has no {name}.{nearest(name, dir(loaded))}")
        loaded = getattr(loaded, name)
    return loaded


def _import_module(parts: list[str], kind: Kind) -> tuple[Any, list[str]]:
    """Import the longest part of a dotted name that is a module; return it, and the names inside it."""
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            return importlib.import_module(name), parts[length:]
        except ModuleNotFoundError as error:
            if error.name is None or not _is_within(name, {error.name}):
                raise UserError(f"the {kind} {'.'.join(parts)} cannot be imported: {reason_of(error)}") from error
        except (Exception, SystemExit) as error:  # a script that was meant to be run may end the process
            raise UserError(f"the {kind} {'.'.join(parts)} cannot be imported: {reason_of(error)}") from error
    raise UserError(f"the {kind} {'.'.join(parts)}: there is no module {parts[0]}{_where()}")


def _add_folder() -> None:
    """Let modules of the user's folder be imported: behind all others, so that a `data.py` there hides nobody's."""
    folder = current_trust().folder
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()


def _where() -> str:
    return f" in {current_trust().folder}, nor is one installed"


def _is_within(target: str, names: Iterable[str]) -> bool:
    return any(target == name or target.startswith(f"{name}.") for name in names)


def _plugin_modules() -> set[str]:
    return {point.module.split(".")[0] for point in entry_points(group=PLUGINS)}


def _named_in(folder: Path) -> set[str]:
    """Return the targets that the YAML files of the user's folder name, and the folder's own packages among them.

    A package beside the user's configs is theirs, and allowed whole; of any other, only what is named.
    """
    named: set[str] = set()
    files = [file for part in ("conf", "sweeps") for file in (folder / part).rglob("*.yaml")]
    for file in files:
        try:
            content = read_bytes(file)
            if b"_target_" in content or REMOTE_CODE.encode() in content:
                named.update(names_of_code(read_yaml(file)))
        except (OSError, UserError):  # composing the file reports what is wrong with it
            continue
    tops = {target.split(".")[0] for target in named if not is_shipped(target)}
    return named | {top for top in tops if (folder / top).is_dir() or (folder / f"{top}.py").is_file()}
