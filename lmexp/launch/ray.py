"""Ray as an engine: runs become tasks of a cluster that is there already.

Tasks belong to the coordinator that submitted them, and end with it. Ray itself tries nothing again: a run whose
worker, or whose whole node, is lost ends without a word, and the queue starts it anew, wherever there is room.
"""

import logging
import math
import re
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lmexp.config.launchers import RayLauncher
from lmexp.config.schema import RunConfig
from lmexp.errors import UserError
from lmexp.launch.engine import Engine
from lmexp.launch.processes import CLEARING_SECONDS, GRACE_SECONDS
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.runs.directory import RESULTS, StateName

if TYPE_CHECKING:
    from ray import ObjectRef

CONNECT_SECONDS = 5.0
"""The longest wait for the port of a cluster's head; Ray's own is much longer."""
ASK_SECONDS = 0.5
"""The least time between two questions to Ray, which answers for all tasks at once."""
ROOM_SECONDS = 60.0
"""How long a run waits for a node to come back once none is left that could ever take it."""

Needs = dict[str, float]
"""What a run asks of its node, by Ray's names; memory in bytes."""


class Tasks:
    """What became of the tasks of some runs."""

    def __init__(self) -> None:
        self._needs: dict[ObjectRef[int], Needs] = {}
        """Of the tasks that Ray still has."""
        self._results: dict[ObjectRef[int], int | Exception] = {}
        self._homeless: dict[ObjectRef[int], float] = {}
        """Since when no node could take a task, by the monotonic clock."""
        self._asked_at = -math.inf

    def watch(self, ref: "ObjectRef[int]", needs: Needs) -> None:
        """Ask about a task from now on."""
        self._needs[ref] = needs

    def forget(self, ref: "ObjectRef[int]") -> None:
        """Ask no longer."""
        for known in (self._needs, self._results, self._homeless):
            known.pop(ref, None)

    def result(self, ref: "ObjectRef[int]") -> int | Exception | None:
        """Return a task's exit code, or what ended it instead; None while Ray has it, as of half a second ago."""
        if ref in self._needs and time.monotonic() - self._asked_at > ASK_SECONDS:
            self._ask()
        return self._results.get(ref)

    def _ask(self) -> None:
        import ray

        ended, left = ray.wait(list(self._needs), num_returns=len(self._needs), timeout=0)
        for ref in ended:
            self._end(ref, _result(ref))
        nodes = _nodes()
        for ref in left:
            short = shortage(self._needs[ref], nodes)
            since = self._homeless.setdefault(ref, time.monotonic())
            if short is None:
                del self._homeless[ref]
            elif time.monotonic() - since > ROOM_SECONDS:  # Ray would keep it for ever
                ray.cancel(ref)
                self._end(ref, UserError(short))
        self._asked_at = time.monotonic()

    def _end(self, ref: "ObjectRef[int]", result: int | Exception) -> None:
        self._results[ref] = result
        del self._needs[ref]


@dataclass(frozen=True)
class RayHandle:
    """A run that was handed over to Ray."""

    tasks: Tasks
    ref: "ObjectRef[int]"
    job: str
    """Its task, as in its state."""

    def exit_code(self) -> int | None:
        """Return the worker's exit code, or 1 where it left none; None while it runs or waits for a node."""
        result = self.tasks.result(self.ref)
        return 1 if isinstance(result, Exception) else result


class RayEngine(Engine[RayHandle]):
    """Runs in Ray."""

    def __init__(self, sweep: Sweep) -> None:
        """Raises UserError when Ray or its cluster is missing, or when no node of it could ever take a run."""
        if find_spec("ray") is None:
            raise UserError("launcher=ray needs ray: pip install 'lmexp[ray]'")
        _connect(_launcher(sweep.examples[0].config).address)
        self._tasks = Tasks()
        self._under_way = 0
        nodes = _nodes()
        for planned in sweep.examples:
            if planned.run.read_state().state in RESULTS:
                continue
            if short := shortage(needs_of(planned.config), nodes):
                raise UserError(f"launcher=ray: {short}")

    def reserve(self, planned: PlannedRun) -> bool:
        """Take a place for a run that is to be submitted next; False while `max_jobs` are under way."""
        if self._under_way >= _launcher(planned.config).max_jobs:
            return False
        self._under_way += 1
        return True

    def start(self, runs: Sequence[PlannedRun]) -> list[RayHandle]:
        """Submit runs, each as a task that Ray starts on a node with room for it."""
        return [self._submit(planned) for planned in runs]

    def release(self, handle: RayHandle) -> None:
        """A run has ended: its place is free."""
        self._under_way -= 1
        self._tasks.forget(handle.ref)

    def why(self, handle: RayHandle) -> tuple[StateName, str] | None:
        """Return state and reason of a run that ended without a word, where Ray knows them."""
        from ray import exceptions as ended

        match self._tasks.result(handle.ref):
            case ended.OutOfMemoryError():
                return "oom", "Ray ended it for want of memory on its node: launcher.memory_gb keeps room for it"
            case ended.TaskCancelledError():
                return "cancelled", "its Ray task was cancelled"
            case ended.WorkerCrashedError() | ended.NodeDiedError() | ended.OwnerDiedError() | ended.ObjectLostError():
                return None
            case UserError() as short:
                return "failed", f"it waited in vain: {short}"
            case Exception() as error:
                return "failed", f"its Ray task could not run it: {_last_line(error)}"
        return None

    def stop(self, handles: Sequence[RayHandle]) -> None:
        """Cancel the tasks of runs, and return when they are gone; a run is asked first, and saves."""
        import ray

        left = [handle.ref for handle in handles if handle.exit_code() is None]
        for force, patience in ((False, GRACE_SECONDS + 2 * CLEARING_SECONDS), (True, CLEARING_SECONDS)):
            for ref in left:
                ray.cancel(ref, force=force)
            if left:
                _, left = ray.wait(left, num_returns=len(left), timeout=patience)

    def close(self) -> None:
        """Leave the cluster."""
        import ray

        ray.shutdown()

    def _submit(self, planned: PlannedRun) -> RayHandle:
        import ray

        from lmexp.launch.ray_job import train

        config, needs = planned.config, needs_of(planned.config)
        launcher = _launcher(config)
        asked = {"num_cpus": needs["CPU"], "num_gpus": needs["GPU"], "memory": needs.get("memory")}
        task = ray.remote(train).options(
            **asked, resources=dict(launcher.resources), max_retries=0, name=planned.run.name
        )
        ref = task.remote(planned.run.path.absolute(), config.trainer.devices, launcher.cpus)
        handle = RayHandle(self._tasks, ref, f"ray:{ref.task_id().hex()}")
        planned.run.note_job(handle.job)
        self._tasks.watch(ref, needs)
        return handle


def needs_of(config: RunConfig) -> Needs:
    """Return what a run asks of its node."""
    launcher, trainer = _launcher(config), config.trainer
    gpus = launcher.gpus
    if gpus is None:
        gpus = trainer.devices if trainer.accelerator in ("gpu", "cuda") else 0
    needs = {"CPU": launcher.cpus * trainer.devices, "GPU": gpus, **launcher.resources}
    return needs | ({"memory": int(launcher.memory_gb * 1e9)} if launcher.memory_gb else {})


def shortage(needs: Needs, nodes: Iterable[Needs]) -> str | None:
    """Return what keeps a run from ever starting on one of the nodes, whatever else they do; None if one could do."""
    nodes = list(nodes)
    if any(all(node.get(name, 0) >= much for name, much in needs.items()) for node in nodes):
        return None
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in needs}
    lacking = [name for name, much in needs.items() if much > most[name]]
    if lacking:
        asked, there = (_much(lacking[0], much[lacking[0]]) for much in (needs, most))
        return f"no node has {asked}, which the run asks for; there is at most {there}"
    together = ", ".join(_much(name, much) for name, much in needs.items() if much)
    return f"no single node has all that the run asks for: {together}"


def _much(name: str, much: float) -> str:
    return f"{much / 1e9:.1f} GB of memory" if name == "memory" else f"{name} {much:g}"


def _connect(address: str) -> None:
    import ray

    found = re.fullmatch(r"\[?([\w.:-]+?)\]?:(\d{1,5})", address)
    if not found:
        raise UserError(f"launcher.address={address}: HOST:PORT of the head of a Ray cluster")
    try:
        socket.create_connection((found[1], int(found[2])), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"launcher.address={address}: no Ray cluster answers there: {error}") from None
    try:
        ray.init(address=address, namespace="lmexp", log_to_driver=False, logging_level=logging.ERROR)
        # Ray tells of lost nodes on standard output, in many lines, and offers no way to keep it from that.
        vars(ray._private.worker)["print_to_stdstream"] = lambda *_, **__: None
    except Exception as error:  # of many kinds: another version, another token, this machine no node of the cluster
        raise UserError(f"launcher.address={address}: Ray could not join the cluster: {_last_line(error)}") from None


def _nodes() -> list[Needs]:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()
    return [node["Resources"] for node in nodes if node["Alive"]]


def _result(ref: "ObjectRef[int]") -> int | Exception:
    import ray

    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        return error


def _launcher(config: RunConfig) -> RayLauncher:
    assert isinstance(config.launcher, RayLauncher)
    return config.launcher


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
