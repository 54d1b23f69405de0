"""The commands: each file holds one verb and is named after it: parse the options, call the study, print the result.

Importing a verb registers it, in the order in which `lmexp --help` shows them. Heavy imports stand inside the verbs, so
that `lmexp --help`, `report` and `fit` start without torch.
"""

from lmexp.cli import new, train, sweep, retry, prepare  # noqa: F401, I001
from lmexp.cli import status, logs, cancel, sync, push, pull  # noqa: F401
from lmexp.cli import plan, report, versus, advise, fit, forecast, reproduce  # noqa: F401
from lmexp.cli import generate, score, eval, bench, export, import_  # noqa: F401
from lmexp.cli import list, doctor  # noqa: F401
from lmexp.cli.app import app, main

__all__ = ["app", "main"]
