"""The engine for Ray: each run is a task of an existing cluster.

Tasks belong to the coordinator that submitted them, and end with it. Ray's own retries are off: if a run's worker or
node is lost, the queue starts the run again on any node with room.
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
from lmexp.config.trust import code_environment
from lmexp.errors import UserError
from lmexp.launch.engine import Engine
from lmexp.launch.processes import CLEARING_SECONDS, GRACE_SECONDS
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.runs.state import RESULTS, StateName

if TYPE_CHECKING:
    from ray import ObjectRef

MAX_CONNECT_SECONDS = 5.0
"""How long to wait for the port of a cluster's head; Ray itself would wait much longer."""
ASK_SECONDS = 0.5
"""Minimum time between two queries to Ray, each of which covers all tasks."""
ROOM_SECONDS = 60.0
"""How long a run waits for a node to come back when no node is left that could take it."""

Needs = dict[str, float]
"""Resources that a run needs on its node, by Ray's names; memory in bytes."""


class Tasks:
    """The outcomes of some tasks."""

    def __init__(self) -> None:
        self._needs: dict[ObjectRef[int], Needs] = {}
        """By task that Ray still has."""
        self._results: dict[ObjectRef[int], int | Exception] = {}
        self._homeless: dict[ObjectRef[int], float] = {}
        """By task, since when no node could take it, on the monotonic clock."""
        self._asked_at = -math.inf

    def watch(self, ref: "ObjectRef[int]", needs: Needs) -> None:
        """Include a task in the queries from now on."""
        self._needs[ref] = needs

    def forget(self, ref: "ObjectRef[int]") -> None:
        """Leave a task out of the queries."""
        for known in (self._needs, self._results, self._homeless):
            known.pop(ref, None)

    def result(self, ref: "ObjectRef[int]") -> int | Exception | None:
        """Return a task's exit code, or the error that ended it; None while Ray has it, half a second old at most."""
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
            elif time.monotonic() - since > ROOM_SECONDS:  # Ray would keep it forever
                ray.cancel(ref)
                self._end(ref, UserError(short))
        self._asked_at = time.monotonic()

    def _end(self, ref: "ObjectRef[int]", result: int | Exception) -> None:
        self._results[ref] = result
        del self._needs[ref]


@dataclass(frozen=True)
class RayHandle:
    """A run that Ray has."""

    tasks: Tasks
    ref: "ObjectRef[int]"
    job: str
    """The task as in the run's state."""

    def exit_code(self) -> int | None:
        """Return the worker's exit code, or 1 if it has none; None while the run is running or waiting for a node."""
        result = self.tasks.result(self.ref)
        return 1 if isinstance(result, Exception) else result


class RayEngine(Engine[RayHandle]):
    """Runs in Ray."""

    def __init__(self, sweep: Sweep) -> None:
        """Raises UserError if Ray or its cluster is missing, or if no node could ever take a run."""
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
        """Reserve room for a run that is submitted next; False while `max_jobs` are under way."""
        if self._under_way >= _launcher(planned.config).max_jobs:
            return False
        self._under_way += 1
        return True

    def start(self, runs: Sequence[PlannedRun]) -> list[RayHandle]:
        """Submit each run as a task, which Ray starts on a node with room for it."""
        return [self._submit(planned) for planned in runs]

    def release(self, handle: RayHandle) -> None:
        """Free the room of a run that has ended."""
        self._under_way -= 1
        self._tasks.forget(handle.ref)

    def why(self, handle: RayHandle) -> tuple[StateName, str] | None:
        """Return state and reason of a run that ended without writing them, if Ray knows them."""
        from ray import exceptions as ended

        match self._tasks.result(handle.ref):
            case ended.OutOfMemoryError():
                return "oom", "Ray killed it because memory ran out on its node: launcher.memory_gb reserves memory"
            case ended.TaskCancelledError():
                return "cancelled", "its Ray task was cancelled"
            case ended.WorkerCrashedError() | ended.NodeDiedError() | ended.OwnerDiedError() | ended.ObjectLostError():
                return None
            case UserError() as short:
                return "failed", f"no node could take it: {short}"
            case Exception() as error:
                return "failed", f"its Ray task failed: {_last_line(error)}"
        return None

    def stop(self, handles: Sequence[RayHandle]) -> None:
        """Cancel the tasks of runs, and return when they are gone; each run saves a checkpoint first."""
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
        resources = {"num_cpus": needs["CPU"], "num_gpus": needs["GPU"], "memory": needs.get("memory")}
        task = ray.remote(train).options(
            **resources, resources=dict(launcher.resources), max_retries=0, name=planned.run.name
        )
        ref = task.remote(planned.run.path.absolute(), config.trainer.devices, launcher.cpus, code_environment())
        handle = RayHandle(self._tasks, ref, f"ray:{ref.task_id().hex()}")
        planned.run.note_job(handle.job)
        self._tasks.watch(ref, needs)
        return handle


def needs_of(config: RunConfig) -> Needs:
    """Return the resources that a run needs on its node."""
    launcher, trainer = _launcher(config), config.trainer
    gpus = launcher.gpus
    if gpus is None:
        gpus = trainer.devices if trainer.accelerator in ("gpu", "cuda") else 0
    needs = {"CPU": launcher.cpus * trainer.devices, "GPU": gpus, **launcher.resources}
    return needs | ({"memory": int(launcher.memory_gb * 1e9)} if launcher.memory_gb else {})


def shortage(needs: Needs, nodes: Iterable[Needs]) -> str | None:
    """Return what a run lacks on every node, even if the node were idle; None if one node could take it."""
    nodes = list(nodes)
    if any(all(node.get(name, 0) >= much for name, much in needs.items()) for node in nodes):
        return None
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in needs}
    lacking = [name for name, much in needs.items() if much > most[name]]
    if lacking:
        needed, available = (_amount(lacking[0], amounts[lacking[0]]) for amounts in (needs, most))
        return f"no node has {needed}, which the run needs; the largest has {available}"
    together = ", ".join(_amount(name, amount) for name, amount in needs.items() if amount)
    return f"no single node has all that the run needs: {together}"


def _amount(name: str, amount: float) -> str:
    return f"{amount / 1e9:.1f} GB of memory" if name == "memory" else f"{name} {amount:g}"


def _connect(address: str) -> None:
    import ray

    match = re.fullmatch(r"\[?([\w.:-]+?)\]?:(\d{1,5})", address)
    if not match:
        raise UserError(f"launcher.address={address}: write HOST:PORT of the head of a Ray cluster")
    try:
        socket.create_connection((match[1], int(match[2])), timeout=MAX_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"launcher.address={address}: no Ray cluster answers there: {error}") from None
    try:
        ray.init(address=address, namespace="lmexp", log_to_driver=False, logging_level=logging.ERROR)
        # Ray prints many lines on standard output about lost nodes, and has no option to turn that off.
        vars(ray._private.worker)["print_to_stdstream"] = lambda *_, **__: None
    except Exception as error:  # many kinds: a wrong version, a wrong token, or this machine is no node of the cluster
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
