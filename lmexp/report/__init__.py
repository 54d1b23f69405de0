"""Findings shown: terminal, HTML, files.

This package is also the function `lmexp.report`. Python binds the name to the package once anything in it is imported,
so the package itself can be called.
"""

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package that passes calls on to the function of its name."""

    def __call__(self, *folders: Any, **options: Any) -> Any:
        """See lmexp.api.report."""
        from lmexp import api

        return api.report(*folders, **options)


sys.modules[__name__].__class__ = _CallablePackage
