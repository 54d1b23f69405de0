"""lmexp: config-driven compute-versus-quality studies of language models.

From Python: `lmexp.run`, `sweep`, `plan`, `report`, `versus`, `reproduce`, `load`, `frontier`, `fit`,
`fit_relation` and `forecast`; see lmexp.api. They are imported when they are first used, so that `import lmexp` stays
fast.
"""

from typing import TYPE_CHECKING, Any

from lmexp.errors import UserError

if TYPE_CHECKING:
    from lmexp.api import (
        fit,
        fit_relation,
        forecast,
        frontier,
        load,
        plan,
        pull,
        push,
        report,
        reproduce,
        run,
        sweep,
        versus,
    )
    from lmexp.launch.policy import Policy
    from lmexp.study.stop_if import StopIf

__version__ = "0.2.0"
__all__ = [
    "Policy",
    "StopIf",
    "UserError",
    "__version__",
    "fit",
    "fit_relation",
    "forecast",
    "frontier",
    "load",
    "plan",
    "pull",
    "push",
    "report",
    "reproduce",
    "run",
    "sweep",
    "versus",
]


def __getattr__(name: str) -> Any:
    """Import what is used from Python when it is first used."""
    if name == "Policy":
        from lmexp.launch.policy import Policy

        return Policy
    if name == "StopIf":
        from lmexp.study.stop_if import StopIf

        return StopIf
    if name in __all__:
        from lmexp import api

        return getattr(api, name)
    raise AttributeError(f"module 'lmexp' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
