"""A search: Optuna proposes cells one after another, based on the results of earlier ones.

The study is a journal, `search.journal` in the sweep's folder: JSON lines that every coordinator appends to and reads.
The outcome of a run is read from its directory, as everywhere. The proposed values determine the run: the same values
are trained once, and a trial whose coordinator was killed resumes from its checkpoint.

A proposal depends on the seed, the number of the trial and the trials that have ended, but not on how often the search
was interrupted.
"""

import fcntl
import os
import warnings
from collections import deque
from pathlib import Path
from typing import IO, Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from lmexp.config.sweeps import Choices, SearchAxis, SearchSpec
from lmexp.errors import UserError
from lmexp.files import hash_text
from lmexp.launch.halving import Halving, Predict
from lmexp.launch.pending import enqueue, is_pending
from lmexp.launch.slots import slots_of
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.runs.manifest import SkippedCell, write_manifest
from lmexp.runs.record import is_number
from lmexp.runs.state import RESULTS, State

JOURNAL = "search.journal"
DIGITS = 4
"""Significant digits of a proposed number: names and tables stay readable."""
RETRY = "retry_of"
"""Attribute of a trial that replaces a failed one: the number of the failed trial."""


class Search:
    """The source of the queue for a search: yields the runs that Optuna proposes.

    Every trial passes through the queue at each call: first the trials that have ended, then those that a killed
    coordinator left unfinished, then new ones until there are `trials`. A failed trial is tried again at the next call,
    as in any sweep, by a new trial that replaces it.
    """

    def __init__(self, sweep: Sweep, predict: Predict | None = None) -> None:
        """Open the study of this search in the sweep's folder, which exists. Raises UserError if it is damaged."""
        assert sweep.search is not None, "a search has a spec"
        self._sweep, self._search = sweep, sweep.search
        self._spec = sweep.search.spec
        self._space = {key: _distribution(axis) for key, axis in self._spec.space.items()}
        self._places = _places(sweep)
        self._halving = Halving(self._spec, predict) if self._spec.prune else None
        self._runs: dict[int, PlannedRun | None] = {}
        """The run of each trial; None if it cannot run."""
        self._waiting: deque[int] = deque()
        """Trials that are known and not popped yet."""
        self._seen: set[int] = set()
        """Trials that were queued in this call."""
        self._under_way: dict[str, int] = {}
        """The trial of each run that is under way, by the identity of the run."""
        self._ended: set[str] = set()
        """Runs whose end the study knows."""
        self._is_full = False
        """Whether Optuna has proposed all trials."""
        self._lock = _Lock(sweep.folder / JOURNAL)
        self._study = self._open()
        self._take_up()

    def peek(self) -> PlannedRun | None:
        """Return the next run; request a trial if there is none and one more may be under way."""
        while len(self._under_way) < self._places:
            if (number := self._next()) is not None:
                return self._run_of(number)
            if not self._ask():
                break
        return None

    def pop(self) -> PlannedRun:
        """Remove and return the run that peek returned."""
        number = self._next()
        assert number is not None, "peek has shown one"
        self._waiting.remove(number)
        planned = self._run_of(number)
        self._under_way[planned.identity] = number
        return planned

    def put_back(self, planned: PlannedRun) -> None:
        """Return a run to the source; it comes before any new one."""
        self._waiting.append(self._under_way.pop(planned.identity))

    def has_answer(self, planned: PlannedRun, state: State) -> bool:
        """Whether its state is a result, or the study knows that it ended otherwise."""
        return state.state in RESULTS or (state.state in ("failed", "cancelled") and planned.identity in self._ended)

    def ended(self, planned: PlannedRun, state: State) -> None:
        """Report the outcome to the study. A run that was stopped from outside stays open there, for the next call."""
        number = self._under_way.pop(planned.identity)
        if state.is_pruned:
            self._tell_pruned(number, planned)
        elif state.state == "done":
            self._tell(number, self._values_of(planned))
        elif state.state in ("oom", "diverged", "timeout", "failed"):
            self._tell(number, None)
        else:
            return
        self._ended.add(planned.identity)

    def hopeless(self, planned: PlannedRun) -> str | None:
        """Return why a run should be stopped: others were better at the same rung."""
        return self._halving.verdict(planned, self._sweep.runs) if self._halving else None

    @property
    def rest(self) -> list[PlannedRun]:
        """The runs that are known, not popped, and without a result."""
        runs = [self._run_of(number) for number in self._waiting]
        return [planned for planned in runs if not self.has_answer(planned, planned.run.read_state())]

    @property
    def exhausted(self) -> bool:
        """Whether every trial has been popped."""
        return self._is_full and not self._waiting

    def _open(self) -> optuna.Study:
        """Return the study of this search; a search with other runs, space or objectives has its own study."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = self._sweep.folder / JOURNAL
        with self._lock:
            _drop_torn_line(path)
            try:
                return optuna.create_study(
                    # A file's journal is JSON alone; Optuna pickles only what it keeps in Redis.
                    storage=JournalStorage(JournalFileBackend(str(path), cast(Any, self._lock))),
                    sampler=RandomSampler(),
                    study_name=f"{self._sweep.name}-{self._search.identity}",
                    directions=list(self._spec.objectives.values()),
                    load_if_exists=True,
                )
            except (ValueError, KeyError, TypeError) as problem:
                raise UserError(f"{path} cannot be read: {problem}; without it, the search begins anew") from None

    def _take_up(self) -> None:
        """Queue the trials of earlier calls: those that have ended, then those that were left unfinished."""
        self._learn()
        replaced = {trial.user_attrs.get(RETRY) for trial in self._study.get_trials(deepcopy=False)}
        left = []
        for trial in self._trials():
            planned = self._runs[trial.number]
            if planned is None:
                self._tell(trial.number, None)
                continue
            state = planned.run.read_state()
            if trial.number in replaced:
                continue
            if trial.state is TrialState.FAIL and (state.state not in RESULTS or self._values_of(planned)):
                self._study.enqueue_trial(trial.params, user_attrs={RETRY: trial.number})
            elif trial.state.is_finished():
                self._ended.add(planned.identity)
                self._line_up(trial.number)
            elif not planned.run.is_alive(state):
                left.append(trial.number)
        for number in left:
            self._line_up(number)

    def _ask(self) -> bool:
        """Request a trial; return False if there are enough, and none waits."""
        if self._is_full:
            return False
        number = self._propose()
        self._learn()
        if number is None:
            self._is_full = True
            # Wait for trials of other coordinators, and take them over if they are left unfinished.
            for trial in self._trials():
                is_left = not trial.state.is_finished() and trial.number not in self._seen
                if is_left and self._runs[trial.number] is not None:
                    self._line_up(trial.number)
        elif self._runs[number] is None:
            self._tell(number, None)
        else:
            self._line_up(number)
        return bool(self._waiting) or not self._is_full

    def _propose(self) -> int | None:
        """Return the number of a new trial; None if there are enough."""
        with self._lock:  # no other coordinator requests one meanwhile, so there are never more than `trials`
            trials = self._study.get_trials(deepcopy=False)
            waits = any(trial.state is TrialState.WAITING for trial in trials)
            if not waits and sum(RETRY not in trial.user_attrs for trial in self._trials()) >= self._spec.trials:
                return None
            self._study.sampler = _sampler(self._spec, len(trials), self._places)
            return self._study.ask(self._space).number

    def _trials(self) -> list[FrozenTrial]:
        """Return the trials of all coordinators, without a half-written one of a coordinator that was killed."""
        return [trial for trial in self._study.get_trials(deepcopy=False) if self._space.keys() <= trial.params.keys()]

    def _learn(self) -> None:
        """Add the runs of new trials to the sweep, including those of other coordinators."""
        new = [trial for trial in self._trials() if trial.number not in self._runs]
        known = {planned.identity: planned for planned in self._sweep.runs}
        for trial in new:
            values = {key: _value(axis, trial.params[key]) for key, axis in self._spec.space.items()}
            self._runs[trial.number] = None
            try:
                planned = self._search.resolve(values)
            except UserError as problem:
                self._sweep.skipped.append(SkippedCell(values=values, reason=str(problem)))
                words = " ".join(f"{key}={value}" for key, value in values.items())
                self._search.say(f"skipped: {words}: {problem}")
            else:
                if planned.identity not in known:
                    known[planned.identity] = planned
                    self._sweep.runs.append(planned)
                self._runs[trial.number] = known[planned.identity]
        if new:
            for key, axis in self._spec.space.items():
                seen = {planned.values[key] for planned in self._sweep.runs}
                ordered = axis.choices if isinstance(axis, Choices) else sorted(seen)
                self._sweep.axes[key] = [value for value in ordered if value in seen]
            write_manifest(self._sweep.folder, self._sweep.manifest())

    def _line_up(self, number: int) -> None:
        planned = self._run_of(number)
        if is_pending(planned) and not self.has_answer(planned, planned.run.read_state()):
            enqueue(planned)
        self._waiting.append(number)
        self._seen.add(number)

    def _next(self) -> int | None:
        """Return the first waiting trial whose run is not under way for another trial of the same values."""
        return next((n for n in self._waiting if self._run_of(n).identity not in self._under_way), None)

    def _run_of(self, number: int) -> PlannedRun:
        planned = self._runs[number]
        assert planned is not None, "a trial that cannot run is not queued"
        return planned

    def _values_of(self, planned: PlannedRun) -> list[float] | None:
        """Return a run's values of the objectives; None if one is missing."""
        rows = planned.run.read_record()
        values = [rows[-1].get(name) for name in self._spec.objectives] if rows else []
        numbers = [float(value) for value in values if value is not None and is_number(value)]
        return numbers if len(numbers) == len(self._spec.objectives) else None

    def _tell(self, number: int, values: list[float] | None) -> None:
        state = TrialState.FAIL if values is None else TrialState.COMPLETE
        self._study.tell(number, values, state, skip_if_finished=True)

    def _tell_pruned(self, number: int, planned: PlannedRun) -> None:
        """Report the last rung that the run reached, and its value there: TPE learns from that too."""
        trial = next(trial for trial in self._trials() if trial.number == number)
        values = self._halving.values(planned) if self._halving else []
        if values and self._halving and not trial.state.is_finished():
            percent = round(100 * self._halving.rungs[len(values) - 1])
            Trial(self._study, trial._trial_id).report(values[-1], percent)
        self._study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)


class _Lock:
    """The journal's lock, which its holder can take again, and which the kernel drops if the holder is killed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._depth = 0

    def acquire(self) -> bool:
        """Take the lock; wait for it if another process has it."""
        if self._file is None:
            self._file = self._path.open("a")
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._depth += 1
        return True

    def release(self) -> None:
        """Release the lock, which is free once it is released as often as it was taken."""
        self._depth -= 1
        if not self._depth and self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *ended: object) -> None:
        self.release()


def _drop_torn_line(path: Path) -> None:
    """Remove a last line that a full disk or a crash has cut short: the next line would be appended to it."""
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def _places(sweep: Sweep) -> int:
    """Return how many trials may be under way: each is proposed from what is known then, so no more than can run."""
    assert sweep.search is not None
    corners, spec = sweep.search.corners, sweep.search.spec
    launcher = corners[0].config.launcher
    slots = max(slots_of(corner.config, corner.device) for corner in corners) if launcher.is_local else 0
    parallel = spec.parallel or launcher.parallel_default(spec.trials, slots)
    return min(parallel, launcher.max_parallel(slots))


def _sampler(spec: SearchSpec, number: int, parallel: int) -> BaseSampler:
    """Return the sampler of one trial, with its own seed: a single seed would repeat itself when resumed."""
    seed = int(hash_text(f"{spec.seed} {number}", 8), 16)
    if spec.sampler == "random":
        return RandomSampler(seed)
    if spec.sampler == "nsga2":  # several generations, even in a short search
        return NSGAIISampler(seed=seed, population_size=min(50, max(4, spec.trials // 5)))
    return TPESampler(
        seed=seed,
        n_startup_trials=min(10, max(3, spec.trials // 4)),
        multivariate=True,
        constant_liar=parallel > 1,
    )


def _distribution(axis: SearchAxis) -> BaseDistribution:
    if isinstance(axis, Choices):
        return CategoricalDistribution(axis.choices)
    with warnings.catch_warnings():  # Optuna lowers a high that no step reaches, and warns
        warnings.simplefilter("ignore")
        if axis.is_whole:
            return IntDistribution(int(axis.low), int(axis.high), axis.log, int(axis.step or 1))
        return FloatDistribution(axis.low, axis.high, axis.log, axis.step)


def _value(axis: SearchAxis, proposed: Any) -> Any:
    """Return a proposed value as a cell has it: numbers without steps are rounded within their interval."""
    if isinstance(axis, Choices) or axis.is_whole:
        return proposed
    if axis.step is not None:
        return float(f"{proposed:.12g}")
    return min(max(float(f"{proposed:.{DIGITS}g}"), axis.low), axis.high)
