"""Launcher configs: where runs are started, and what each is given there."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from lmexp.config.base import Count, Positive, Section, no_boolean


class LocalLauncher(Section):
    """This machine: one process a run, slots of devices."""

    name: Literal["local"] = "local"
    slots: Count | None = None
    """Runs at a time; null means as many as the devices allow, and one on a CPU."""
    devices_per_run: Positive | None = None
    """Devices that a run takes; null means trainer.devices. A fraction shares one device between runs."""
    exclusive: bool = True
    """Whether each run is to have its devices to itself; false is needed for a fraction of one."""
    threads: Count | None = None
    """CPU threads a run; null splits the cores evenly."""


class ClusterLauncher(Section):
    """A cluster: its nodes see the outputs under the same path and have the same lmexp."""

    max_jobs: Count = 1000
    """Runs that are handed over to the scheduler at a time."""
    cpus: Count = 1
    """CPU cores, and threads, a process of a run."""
    memory_gb: Positive | None = None
    """Host memory a node of a run, GB; null means the cluster's default."""


class SlurmLauncher(ClusterLauncher):
    """Slurm, through submitit; many runs of one shape are one array job."""

    name: Literal["slurm"]
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gpus_per_node: Annotated[int, BeforeValidator(no_boolean), Field(ge=0)] | None = None
    """GPUs of each node of a run; null asks for none, or one a process where trainer.accelerator is a GPU."""
    constraint: str | None = None
    minutes: Count = 60
    """The job's time limit; a run that needs longer is saved before it and queued again under the same id."""
    signal_seconds: Count = 60
    """How long before the time limit, or a preemption, a run is told to save."""
    requeues: Count = 100
    """How often a run may reach its time limit."""
    running_jobs: Count | None = None
    """Jobs of one array that run at a time; null means as many as the cluster gives."""
    setup: list[str] = []
    """Shell lines before the run: `module load`, `source .../activate`."""
    options: dict[str, str | int] = {}
    """Further options of sbatch, as in {exclude: node7}."""


class RayLauncher(ClusterLauncher):
    """An existing Ray cluster."""

    name: Literal["ray"]
    address: str
    """HOST:PORT of the cluster's head; `auto` would take whatever cluster was last seen on the machine."""
    gpus: Annotated[float, BeforeValidator(no_boolean), Field(ge=0)] | None = None
    """GPUs a run; a fraction shares one; null asks for none, or one a process where trainer.accelerator is a GPU."""
    exclusive: bool = True
    """Whether each run is to have its GPUs to itself; false is needed for a fraction of one."""
    resources: dict[str, Positive] = {}
    """Further resources of the cluster that a run takes, as in {a100: 1}."""


LauncherConfig = Annotated[LocalLauncher | SlurmLauncher | RayLauncher, Field(discriminator="name")]
