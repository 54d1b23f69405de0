"""Task sections, one module a task: what it predicts from what kind of data, and which models can do it.

A task of lmexp's own is told by its `_target_`; any other target is the user's code (see targets.py).
"""

from typing import Annotated

from pydantic import SerializeAsAny

from lmexp.config.targets import open_union, shipped_sections
from lmexp.config.tasks.base import TaskSection

TaskConfig = Annotated[SerializeAsAny[TaskSection], open_union("task", __name__, TaskSection)]
"""The type of a field that holds any task's section."""


def tasks() -> list[type[TaskSection]]:
    """Return the sections of all tasks that come with lmexp."""
    return list(shipped_sections(__name__, TaskSection).values())
