"""The verbs: parse, call, print.

A file holds the verbs of one purpose; importing it registers them, in the order in which `lmexp --help` shows them.
Heavy imports stand inside the verbs, so that `lmexp --help`, `report` and `fit` start without torch.
"""

from lmexp.cli import running, watching, deciding, foretelling, using, looking  # noqa: F401, I001
from lmexp.cli.app import app, main

__all__ = ["app", "main"]
