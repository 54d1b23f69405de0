"""From a `_target_` to the section that checks the keys beside it: one of lmexp's own, or one that user code brings.

The sections of lmexp's own models and tasks lie in a package of this room, a module each, and need no torch: a config
is checked, counted and planned without it. A target from elsewhere is imported, once the user is known to trust it, and
its section is the class attribute `Config`.
"""

import importlib
import pkgutil
from functools import cache
from typing import Any, TypeVar, get_args

from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError

from lmexp.config.base import Section
from lmexp.config.code import Kind, load_target
from lmexp.config.trust import is_shipped
from lmexp.errors import UserError

S = TypeVar("S", bound=Section)


def shipped_sections(package: str, base: type[S]) -> dict[str, type[S]]:
    """Return the sections that the modules of a package define, by the `_target_` that each is for."""
    return {target: section for target, section in _sections(package).items() if issubclass(section, base)}


@cache
def _sections(package: str) -> dict[str, type[Section]]:
    sections: dict[str, type[Section]] = {}
    for entry in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{entry.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Section) and value.__module__ == module.__name__:
                field = value.model_fields.get("target")
                # A family's own section is for one target; what sections share leaves it open.
                sections |= dict.fromkeys(get_args(field.annotation) if field else (), value)
    return sections


def open_union(kind: Kind, package: str, base: type[S]) -> BeforeValidator:
    """Return the validator of a field that holds a section of a package, or one that code from outside brings.

    It raises UserError for code that the user does not trust, or that brings no section.
    """

    def choose(value: Any) -> Any:
        target = value.get("_target_", value.get("target")) if isinstance(value, dict) else None
        if not isinstance(target, str):
            return value
        shipped = shipped_sections(package, base)
        section: type[S] | None = shipped.get(target)
        if section is None and is_shipped(target):
            expected = ", ".join(f"'{name}'" for name in shipped)
            said = {"discriminator": "'target' | '_target_'", "tag": target, "expected_tags": expected}
            raise PydanticKnownError("union_tag_invalid", said)
        return (section or section_from_outside(kind, target, base)).model_validate(value)

    return BeforeValidator(choose)


def section_from_outside(kind: Kind, target: str, base: type[S]) -> type[S]:
    """Import a target from outside lmexp and return its section. Raises UserError; see load_target."""
    section = getattr(load_target(target, kind), "Config", None)
    if not (isinstance(section, type) and issubclass(section, base)):
        raise UserError(
            f"the {kind} {target} needs a class attribute Config that derives from {base.__module__}.{base.__name__}"
        )
    return section
