"""lmexp: config-driven compute-versus-quality studies of language models.

In a notebook: `lmexp.load("outputs/demo")`, `lmexp.frontier(df)`, `lmexp.fit(df)`; see lmexp.api. They are imported
when they are first used, so that `import lmexp` stays light.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmexp.api import fit, frontier, load

__version__ = "0.2.0"
__all__ = ["__version__", "fit", "frontier", "load"]


def __getattr__(name: str) -> Any:
    """Import what a notebook uses when it is first asked for."""
    if name in ("fit", "frontier", "load"):
        from lmexp import api

        return getattr(api, name)
    raise AttributeError(f"module 'lmexp' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
