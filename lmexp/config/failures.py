"""Which code from outside lmexp raised an error, so that a message can name it."""

import traceback
from pathlib import Path

from lmexp.config.trust import current_trust
from lmexp.errors import UserError, reason_of


def explain(error: BaseException) -> str:
    """Return an exception as one line, as reason_of does, with the place in the user's own code that raised it."""
    place = None if isinstance(error, UserError) else place_outside(error)
    return reason_of(error) if place is None else f"{reason_of(error)} (in {place})"


def place_outside(error: BaseException) -> str | None:
    """Return the place in trusted code from outside that raised an error: `my_study.data.verses, my_study/data.py:7`.

    Such code may have been in a library when it happened. None if it came from lmexp, or from elsewhere.
    """
    trust = current_trust()
    names = trust.everything()
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = str(frame.f_globals.get("__name__"))
        if module.split(".")[0] == "lmexp":
            return None
        if any(f"{module}.{frame.f_code.co_qualname}.".startswith(f"{name}.") for name in names):
            file = Path(frame.f_code.co_filename)
            shown = file.relative_to(trust.folder) if file.is_relative_to(trust.folder) else file
            return f"{module}.{frame.f_code.co_qualname}, {shown}:{line}"
    return None
