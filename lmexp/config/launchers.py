"""Launcher sections: where runs start, what each gets there, and which engine starts them."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from lmexp.config.base import Count, Positive, Section
from lmexp.config.trainer import TrainerConfig
from lmexp.errors import UserError

AUTO = "auto"
"""Value of `devices_per_run` that leaves to lmexp how many runs share a device."""
MAX_JOBS = 1000
"""Runs that a scheduler is given at a time, unless the config says otherwise."""
OneLine = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A text for a job's script: what followed a line break in it would be a command there."""
TRIALS_PER_PLACE = 5
"""A search on a cluster has a fifth of its trials under way at a time, so that most of them learn from others."""


class LauncherSection(Section):
    """What lmexp needs to know about any launcher."""

    name: str
    engine: ClassVar[str] = ""
    """Dotted name of the engine class, which is imported when the first run starts; see launch/engine.py."""
    is_local: ClassVar[bool] = False
    """Whether runs train on this machine, so that its devices, memory and precisions are checked before they start."""
    spans_nodes: ClassVar[bool] = False
    """Whether one run can have several nodes."""

    def check(self, trainer: TrainerConfig) -> None:
        """Raise UserError for values that cannot be combined with each other or with the trainer's."""
        if trainer.num_nodes > 1 and not self.spans_nodes:
            raise UserError(f"trainer.num_nodes={trainer.num_nodes}: launcher={self.name} gives a run one node")

    def devices(self, processes: int) -> float:
        """Return how many devices a run of so many processes gets: at least one each, or a fraction of one."""
        return processes

    def threads_of(self, processes: int) -> int | None:
        """Return the CPU threads of a run of so many processes; None means an even share of this machine's cores."""
        return processes

    def max_parallel(self, slots: int) -> int:
        """Return how many runs may be under way at a time; `slots` is how many this machine has room for."""
        return MAX_JOBS

    def parallel_default(self, trials: int, slots: int) -> int:
        """Return how many of a search's trials are under way at a time, unless the sweep says how many."""
        return max(1, trials // TRIALS_PER_PLACE)


class LocalLauncher(LauncherSection):
    """This machine: one process per run, slots of devices."""

    name: Literal["local"] = "local"
    engine: ClassVar[str] = "lmexp.launch.local.LocalEngine"
    is_local: ClassVar[bool] = True
    slots: Count | None = None
    """Runs at a time; null means as many as the devices allow, and one on a CPU."""
    devices_per_run: Positive | Literal["auto"] | None = None
    """Devices that a run takes; null means trainer.devices. A fraction shares one device between runs; `auto` measures
    how many runs side by side make the best use of it, and shares it between so many (launch/sharing.py)."""
    exclusive: bool = True
    """Whether each run has its devices to itself; a fraction of a device needs false, `auto` does not."""
    threads: Count | None = None
    """CPU threads per run; null splits the cores evenly, and gives no process more than OMP_NUM_THREADS."""

    def check(self, trainer: TrainerConfig) -> None:
        """Raise UserError for values that cannot be combined."""
        super().check(trainer)
        if not isinstance(self.devices_per_run, str):
            check_share("devices_per_run", self.devices_per_run, self.exclusive, trainer.devices)
        elif trainer.devices > 1:
            raise UserError(
                f"launcher.devices_per_run=auto shares one device between runs; the run has {trainer.devices} processes"
            )
        elif self.slots is not None:
            raise UserError(
                f"launcher.slots={self.slots} and launcher.devices_per_run=auto both say how many runs train at a "
                "time; set one of them"
            )

    def devices(self, processes: int) -> float:
        """Return how many devices a run gets."""
        return devices_for(None if isinstance(self.devices_per_run, str) else self.devices_per_run, processes)

    def threads_of(self, processes: int) -> int | None:
        """Return the threads that the config sets, or None for an even share."""
        return self.threads

    def max_parallel(self, slots: int) -> int:
        """Return as many runs as this machine has slots."""
        return slots

    def parallel_default(self, trials: int, slots: int) -> int:
        """Return as many trials as this machine has slots."""
        return slots


class ClusterLauncher(LauncherSection):
    """A cluster: its nodes see the outputs under the same path and have the same lmexp."""

    max_jobs: Count = MAX_JOBS
    """Runs that the scheduler is given at a time."""
    cpus: Count = 1
    """CPU cores, and threads, per process of a run."""
    memory_gb: Positive | None = None
    """Host memory per node of a run, GB; null means the cluster's default."""

    def threads_of(self, processes: int) -> int | None:
        """Return one thread per core."""
        return self.cpus * processes

    def max_parallel(self, slots: int) -> int:
        """Return as many runs as the scheduler is given at a time."""
        return self.max_jobs


class SlurmLauncher(ClusterLauncher):
    """Slurm, through submitit; runs that need the same resources are one array job."""

    name: Literal["slurm"]
    engine: ClassVar[str] = "lmexp.launch.slurm.SlurmEngine"
    spans_nodes: ClassVar[bool] = True
    partition: OneLine | None = None
    account: OneLine | None = None
    qos: OneLine | None = None
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    """GPUs per node of a run; null requests none, or one per process if trainer.accelerator is a GPU."""
    constraint: OneLine | None = None
    minutes: Count = 60
    """Time limit of a job; a longer run is saved before the limit and queued again under the same id."""
    signal_seconds: Count = 60
    """How long before the time limit, or a preemption, a run is told to save."""
    requeues: Count = 100
    """How often a run may reach its time limit."""
    running_jobs: Count | None = None
    """Jobs of one array that run at a time; null means as many as the cluster allows."""
    setup: list[str] = []
    """Shell lines before the run: `module load`, `source .../activate`."""
    options: dict[OneLine, OneLine | int] = {}
    """Further options of sbatch, as in {exclude: node7}."""

    def check(self, trainer: TrainerConfig) -> None:
        """Raise UserError for values that cannot be combined."""
        super().check(trainer)
        if self.signal_seconds >= 60 * self.minutes:
            raise UserError(
                f"launcher.signal_seconds={self.signal_seconds} leaves no time to train: the limit is "
                f"launcher.minutes={self.minutes}"
            )

    def max_parallel(self, slots: int) -> int:
        """Return as many runs as one array runs, or as the scheduler is given, at a time."""
        return self.running_jobs or super().max_parallel(slots)

    def parallel_default(self, trials: int, slots: int) -> int:
        """Return as many trials as one array runs at a time, or the default of a cluster."""
        return self.running_jobs or super().parallel_default(trials, slots)


class RayLauncher(ClusterLauncher):
    """An existing Ray cluster."""

    name: Literal["ray"]
    engine: ClassVar[str] = "lmexp.launch.ray.RayEngine"
    address: str
    """HOST:PORT of the cluster's head; `auto` would take the cluster that was last seen on the machine."""
    gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs per run; a fraction shares one; null requests none, or one per process if trainer.accelerator is a GPU."""
    exclusive: bool = True
    """Whether each run has its GPUs to itself; a fraction of a GPU needs false."""
    resources: dict[str, Positive] = {}
    """Further resources of the cluster that a run takes, as in {a100: 1}."""

    def check(self, trainer: TrainerConfig) -> None:
        """Raise UserError for values that cannot be combined."""
        super().check(trainer)
        check_share("gpus", self.gpus, self.exclusive, trainer.devices)

    def devices(self, processes: int) -> float:
        """Return how many GPUs a run gets."""
        return devices_for(self.gpus, processes)


def devices_for(share: float | None, processes: int) -> float:
    """Return the devices of a run whose config sets `share`: a fraction of one, or at least one per process."""
    return share if share and share < 1 else max(share or 0.0, processes)


def check_share(key: str, share: float | None, exclusive: bool, processes: int) -> None:
    """Raise UserError for a share of a device that no run can have; `key` is the launcher's key that sets it."""
    if share is None or share.is_integer():
        return
    if share > 1:
        raise UserError(f"launcher.{key}={share:g}: set a whole number of devices, or less than one")
    if processes > 1:
        raise UserError(f"launcher.{key}={share:g} is a part of one device; the run has {processes} processes")
    if exclusive:
        raise UserError(
            f"launcher.{key}={share:g} lets runs share a device, and slow each other: "
            "set launcher.exclusive=false if that is what you want"
        )


class OutsideLauncher(LauncherSection):
    """A launcher of your own: `_target_` names its engine class, and all other keys are arguments of that class.

    Reading the section imports nothing; see trust.py for which code may be imported.
    """

    model_config = ConfigDict(extra="allow")

    target: str = Field(alias="_target_")
    """Dotted name of a class that derives from lmexp.launch.engine.Engine, as in my_study.launchers.MyLauncher."""
    name: str = "outside"

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the engine class."""
        return dict(self.model_extra or {})


def _origin(section: Any) -> str:
    is_outside = isinstance(section, OutsideLauncher) or (isinstance(section, dict) and "_target_" in section)
    return "(outside)" if is_outside else "(shipped)"


ShippedLauncher = LocalLauncher | SlurmLauncher | RayLauncher
LauncherConfig = Annotated[
    Annotated[ShippedLauncher, Field(discriminator="name"), Tag("(shipped)")]
    | Annotated[OutsideLauncher, Tag("(outside)")],
    Discriminator(_origin),
]
