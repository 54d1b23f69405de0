"""Model sections, one module a family: its fields, what it may not be, what it holds, costs and keeps in memory.

A family of lmexp's own is told by its `_target_`; any other target is the user's code (see targets.py).
"""

from typing import Annotated

from pydantic import SerializeAsAny

from lmexp.config.models.base import ModelSection
from lmexp.config.targets import open_union, shipped_sections

ModelConfig = Annotated[SerializeAsAny[ModelSection], open_union("model", __name__, ModelSection)]
"""The type of a field that holds any model's section."""


def families() -> list[type[ModelSection]]:
    """Return the sections of all families that come with lmexp."""
    return list(shipped_sections(__name__, ModelSection).values())
