"""The queue: which run starts next, and what became of the runs that ended.

One coordinator starts each run as soon as there is room, and reads its outcome from its state file, not from what it
printed. A run that fails is a row with a reason; the others continue. A run whose process vanished is started again,
and resumes from its checkpoint. Several coordinators can work on one sweep: each waits for the runs of the others, and
takes over a run whose coordinator has vanished.
"""

import shutil
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from lmexp.cost.memory import estimate_memory
from lmexp.errors import UserError
from lmexp.launch.engine import Engine, Handle, open_engine
from lmexp.launch.halving import Predict
from lmexp.launch.pending import Listed, Source, enqueue, is_pending
from lmexp.launch.policy import MAX_LOST_RETRIES, Policy
from lmexp.launch.probe import known_probes
from lmexp.launch.spend import Ledger
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.runs.coordinators import coordinating, last_request
from lmexp.runs.manifest import write_manifest
from lmexp.runs.state import RESULTS, WAITING, State, StateName
from lmexp.units import counted

POLL_SECONDS = 0.05
LOOK_SECONDS = 0.2
"""Time between two checks of time limits, of the runs of other coordinators, and of requests to stop."""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a sweep, and its runs with it."""
SPARE_BYTES = 2_000_000
"""Disk space of a run besides its weights: curve, log, config, tokenizer."""


class Listener(Protocol):
    """Receives what happens to the runs of a sweep."""

    def started(self, planned: PlannedRun) -> None:
        """A run was started."""

    def ended(self, planned: PlannedRun, state: State) -> None:
        """A run has ended, now or in an earlier call."""

    def again(self, planned: PlannedRun, why: str) -> None:
        """A run will be started again."""

    def waiting(self, running: Sequence[PlannedRun]) -> None:
        """The queue is waiting; called many times a second."""


@dataclass
class _Running:
    planned: PlannedRun
    handle: Handle
    since: float
    """When it was started, by the monotonic clock."""
    checkpoint: float | None
    """When its last checkpoint was written, as it was started."""


@dataclass
class _Tries:
    """How often a run has been started again."""

    failed: int = 0
    lost: int = 0
    """How often in a row it vanished without a new checkpoint."""


def run_sweep(
    sweep: Sweep, listener: Listener, policy: Policy | None = None, predict: Predict | None = None
) -> list[State]:
    """Run what a sweep has not run yet, and return the state of every run, in the sweep's order.

    `predict` is for a search that compares its trials by predicted final losses.

    Raises UserError, before anything starts, if the outputs cannot be written. On Ctrl-C, or on `lmexp cancel`, the
    running runs are stopped and marked cancelled, and KeyboardInterrupt is raised.
    """
    before = last_request(sweep.folder)
    policy = policy or Policy()
    ledger = Ledger(policy, lambda planned: known_probes([planned], sweep.folder.parent)[0])
    ledger.check(sweep.examples)
    pending = [
        planned for planned in sweep.runs if is_pending(planned) and not policy.has_given_up(planned.run.read_state())
    ]
    # The runs of a search are not known yet; each needs at least as much disk as the smallest.
    _check_disk(sweep, pending if sweep.search is None else sweep.search.corners[:1] * sweep.search.spec.trials)
    engine = open_engine(sweep)
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
        if sweep.has_manifest:
            write_manifest(sweep.folder, sweep.manifest())
        for planned in pending:
            enqueue(planned)
    except OSError as error:
        raise UserError(f"cannot write in {sweep.folder}: {error.strerror or error}") from None
    with coordinating(sweep.folder):
        source = _source(sweep, predict)
        for planned in sweep.runs:
            ledger.ended(planned, planned.run.read_state())
        Coordinator(source, engine, listener, policy, ledger, sweep.folder, before).run()
    if not sweep.runs:
        raise UserError(f"none of the {len(sweep.skipped)} trials could be run: {sweep.skipped[0].reason}")
    return [planned.run.read_state() for planned in sweep.runs]


def _source(sweep: Sweep, predict: Predict | None) -> Source:
    if sweep.search is None:
        return Listed(sweep.runs)
    from lmexp.launch.search import Search  # imports Optuna, which is an extra

    return Search(sweep, predict)


class Coordinator:
    """Starts the runs of a source, and watches them until they end."""

    def __init__(
        self,
        source: Source,
        engine: Engine[Any],
        listener: Listener,
        policy: Policy,
        ledger: Ledger,
        folder: Path,
        request: str | None,
    ) -> None:
        """`folder` is the sweep's; `request` is the last request to stop there that is not for this coordinator."""
        self._source, self._engine, self._listener = source, engine, listener
        self._policy, self._ledger, self._folder, self._request = policy, ledger, folder, request
        self._looked = 0.0
        self._running: list[_Running] = []
        self._elsewhere: list[PlannedRun] = []
        """Runs that another coordinator, or a person, is training."""
        self._tries: dict[str, _Tries] = {}
        self._closed: str | None = None
        """Why no further run is started."""
        self._interrupted = False
        """Whether a signal asked to stop."""

    def run(self) -> None:
        """Run until everything has ended. Raises KeyboardInterrupt when stopped, after stopping the runs."""
        # Only the main thread can handle signals. A signal that is ignored stays ignored, so that `nohup` works.
        in_main_thread = threading.current_thread() is threading.main_thread()
        handled = [which for which in STOPPING if in_main_thread and signal.getsignal(which) is not signal.SIG_IGN]
        handlers = {which: signal.signal(which, self._interrupt) for which in handled}
        try:
            while self._running or self._elsewhere or not (self._closed or self._source.exhausted):
                self._fill()
                if self._interrupted:
                    raise KeyboardInterrupt
                for one in [one for one in self._running if one.handle.exit_code() is not None]:
                    self._settle(one)
                self._stop(self._hopeless())
                if time.monotonic() - self._looked >= LOOK_SECONDS:
                    self._looked = time.monotonic()
                    self._stop(self._late())
                    self._look()
                self._listener.waiting([one.planned for one in self._running])
                time.sleep(POLL_SECONDS)
        except BaseException:  # no run is left behind, whatever was raised
            self._stop_all()
            raise
        finally:
            try:
                self._engine.close()
            finally:
                for which, handler in handlers.items():
                    signal.signal(which, handler)

    def _fill(self) -> None:
        """Start the runs that there is room for."""
        batch: list[PlannedRun] = []
        while not self._closed and (planned := self._source.peek()) is not None:
            state = planned.run.read_state()
            # This command queues again what had failed before it. What has failed since then was tried by another
            # coordinator, and is not tried twice.
            has_failed = state.state == "failed"
            if has_failed or self._source.has_answer(planned, state) or self._policy.has_given_up(state):
                self._end(self._source.pop(), state)
            elif handle := self._engine.adopt(planned, state):
                self._begin(self._source.pop(), handle)
            elif planned.run.is_alive(state):
                self._elsewhere.append(self._source.pop())
            elif why := self._ledger.refuses(planned, [*self._under_way, *batch]):
                self._close(why)
            elif self._engine.reserve(planned):
                batch.append(self._source.pop())
            else:
                break
        if not batch:
            return
        for planned in batch:
            planned.run.clear_failure()
            if planned.run.read_state().job:  # one that has ended
                planned.run.update_state(job=None)
        waiting = iter(batch)
        for handle in self._engine.start(batch) or ():
            self._begin(next(waiting), handle)
        if left := next(waiting, None):
            raise UserError(f"{type(self._engine).__name__}.start returned no handle for the run {left.run.name}")

    @property
    def _under_way(self) -> list[PlannedRun]:
        """The runs that this coordinator or others are training."""
        return [*(one.planned for one in self._running), *self._elsewhere]

    def _begin(self, planned: PlannedRun, handle: Handle) -> None:
        self._running.append(_Running(planned, handle, time.monotonic(), planned.run.last_saved()))
        self._listener.started(planned)

    def _end(self, planned: PlannedRun, state: State) -> None:
        """Report a run that has a result, or that will not get one."""
        self._ledger.ended(planned, state)
        self._source.ended(planned, state)
        self._listener.ended(planned, state)
        if state.state == "failed" and self._policy.stop_at_failure:
            self._close(f"not started: {planned.run.name} failed")

    def _close(self, why: str) -> None:
        """Start no further run; the running ones continue."""
        self._closed = why
        for planned in self._source.rest:
            if state := planned.run.settle(state="queued", reason=why, pid=None):
                self._listener.ended(planned, state)

    def _settle(self, one: _Running) -> None:
        """Remove a run whose process has ended from the list, and find its outcome."""
        state, why, code = one.planned.run.read_state(), self._engine.why(one.handle), one.handle.exit_code() or 0
        self._running.remove(one)
        self._engine.release(one.handle)
        try:
            self._conclude(one, state, why, code)
        except OSError as error:  # its directory is gone or read-only: only this run has failed
            reason = f"its directory cannot be written: {error.strerror or error}"
            self._end(one.planned, replace(state, state="failed", reason=reason))

    def _conclude(self, one: _Running, state: State, why: tuple[StateName, str] | None, code: int) -> None:
        """Find the outcome of a run, and start it again if the policy says so."""
        planned, tries = one.planned, self._tries.setdefault(one.planned.run.name, _Tries())
        if state.state in ("queued", "running"):
            is_ours = state.job is not None and state.job == one.handle.job  # then it has ended, with all its processes
            if not is_ours:
                state, alive = planned.run.look()
                if alive:  # another coordinator's process came first
                    self._elsewhere.append(planned)
                    return
        if state.state in ("queued", "running"):
            failure = planned.run.read_failure()
            if failure or why:
                outcome, reason = (failure.outcome, failure.reason) if failure else why or ("failed", "")
                state = planned.run.update_state(state=outcome, reason=reason, pid=None)
            else:
                progressed = planned.run.last_saved() != one.checkpoint
                tries.lost = 1 if progressed else tries.lost + 1
                how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code} and no result"
                if tries.lost <= MAX_LOST_RETRIES:
                    self._again(planned, f"its process {how}")
                    return
                state = planned.run.update_state(
                    state="failed", reason=f"the process {how}, {tries.lost} times without getting further", pid=None
                )
        elif state.state == "preempted" and why and why[0] == "cancelled":  # while it waited to go on
            state = planned.run.update_state(state=why[0], reason=why[1])
        if state.state == "failed" and tries.failed < self._policy.retries:
            tries.failed += 1
            self._again(planned, f"retry {tries.failed} of {self._policy.retries}, after: {state.reason}")
        elif state.state == "preempted":
            self._again(planned, "it was preempted")
        else:
            self._end(planned, state)

    def _again(self, planned: PlannedRun, why: str | None) -> None:
        """Queue a run again, unless it has a result by now, or somebody else is training it.

        `why` is None if no process of it has ended, so that there is nothing to report.
        """
        state = planned.run.settle(state="queued", reason=self._closed or why, pid=None, job=None)
        if state is None:
            self._elsewhere.append(planned)
        elif state.state in RESULTS:
            self._end(planned, state)
        else:
            self._ledger.ended(planned, state)
            if self._closed:
                self._listener.ended(planned, state)
            elif why:
                self._listener.again(planned, why)
            self._source.put_back(planned)

    def _hopeless(self) -> dict[str, tuple[StateName, str]]:
        """Return the runs that the source or the policy wants to stop, by name, with the state and reason they get."""
        rule = self._policy.stop_if
        reasons = {
            one.planned.run.name: self._source.hopeless(one.planned)
            or (rule.why(one.planned.run, self._folder) if rule else None)
            for one in self._running
        }
        return {name: ("cancelled", why) for name, why in reasons.items() if why}

    def _late(self) -> dict[str, tuple[StateName, str]]:
        """Return the runs that have reached the time limit, by name, with the state and reason they get."""
        limit = self._policy.timeout
        if limit is None:
            return {}
        late = [one.planned.run.name for one in self._running if self._age(one) > limit]
        return dict.fromkeys(late, ("timeout", f"it ran longer than the {limit:g} s of --timeout"))

    def _stop(self, named: dict[str, tuple[StateName, str]]) -> None:
        """Stop runs and give them these states and reasons; a run that has a result by now is left alone."""
        stopped = [one for one in self._running if one.planned.run.name in named]
        stopped = [one for one in stopped if one.planned.run.read_state().state not in RESULTS]
        if not stopped:
            return
        self._engine.stop([one.handle for one in stopped])
        for one in stopped:
            outcome, reason = named[one.planned.run.name]
            self._running.remove(one)
            self._engine.release(one.handle)
            state = one.planned.run.read_state()
            if state.state not in RESULTS:  # in the last moment
                run = one.planned.run
                state = run.update_state(state=outcome, reason=reason, finished=run.now(), pid=None)
            self._end(one.planned, state)

    def _age(self, one: _Running) -> float:
        """Return the seconds that a run has been running, without its wait in a scheduler's queue."""
        state = one.planned.run.read_state()
        if state.job is None:
            return time.monotonic() - one.since
        return one.planned.run.now() - state.started if state.state == "running" and state.started else 0.0

    def _stop_all(self) -> None:
        """Stop every run that this coordinator has started; what had not started stays queued."""
        self._engine.stop([one.handle for one in self._running])
        for planned in [*(one.planned for one in self._running), *self._source.rest]:
            with suppress(OSError):
                if planned.run.read_state().state in WAITING:
                    planned.run.stop_waiting("the sweep was stopped")

    def _look(self) -> None:
        """Check for requests to stop, and for runs of other coordinators that have ended."""
        if (request := last_request(self._folder)) is not None and request != self._request:
            raise KeyboardInterrupt
        for planned in list(self._elsewhere):
            state, alive = planned.run.look()
            if alive:
                continue
            self._elsewhere.remove(planned)
            if state.state == "running":
                self._again(planned, "the process that another coordinator had started for it is gone")
            elif state.state in WAITING:  # it was not started, or its coordinator has queued it again
                self._again(planned, None)
            else:
                self._end(planned, state)

    def _interrupt(self, *_: object) -> None:
        """Treat SIGTERM and SIGHUP like Ctrl-C.

        The loop raises, not this handler: an exception here could leave behind a run that is just starting, and that of
        a second signal would interrupt the stopping of the runs.
        """
        self._interrupted = True


def _check_disk(sweep: Sweep, pending: list[PlannedRun]) -> None:
    """Raise UserError if the disk cannot hold what the pending runs will write."""
    if not pending:
        return
    estimates = [estimate_memory(planned.config) for planned in pending]
    kept = sum(estimate.weights for estimate in estimates) + len(pending) * SPARE_BYTES
    while_training = 2 * max(estimate.weights + estimate.optimizer for estimate in estimates)
    needed = kept + while_training
    free = shutil.disk_usage(sweep.folder.parent).free
    if free < needed:
        raise UserError(
            f"the disk of {sweep.folder.parent} has {free / 1e6:.0f} MB free; "
            f"{counted(len(pending), 'run', 'needs')} about {needed / 1e6:.0f} MB"
        )
