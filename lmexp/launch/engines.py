"""Which engine a sweep's launcher asks for; those of clusters are imported only then."""

from typing import Any

from lmexp.launch.engine import Engine
from lmexp.launch.local import LocalEngine
from lmexp.resolve.planned import Sweep


def open_engine(sweep: Sweep) -> Engine[Any]:
    """Return the engine of a sweep. Raises UserError when its package is missing or its cluster is not there."""
    launcher, device = sweep.examples[0].config.launcher, sweep.examples[0].device
    if launcher.name == "slurm":
        from lmexp.launch.slurm import SlurmEngine

        return SlurmEngine(sweep)
    if launcher.name == "ray":
        from lmexp.launch.ray import RayEngine

        return RayEngine(sweep)
    return LocalEngine(device)
