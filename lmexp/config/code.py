"""Code from outside lmexp: how it is imported, and how a run remembers its version.

A config names code by `_target_: package.module.Name`. Importing a module runs it, so only the user may say which:
trust.py holds the rule.
"""

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Sequence
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from lmexp.config.base import OutsideSection, Section
from lmexp.config.trust import check_trusted, current_trust, is_shipped, is_within
from lmexp.errors import UserError, nearest, reason_of

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
            if error.name is None or not is_within(name, {error.name}):
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
