"""Run a study: resolve its cells, train what is not done, and return what became of each run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmexp.launch.halving import Predict
from lmexp.launch.policy import Policy
from lmexp.launch.processes import warm_up
from lmexp.launch.queue import Listener, run_sweep
from lmexp.launch.sharing import has_work, settle_sharing
from lmexp.launch.slots import busy_warning
from lmexp.messages import Say, silent
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir
from lmexp.runs.manifest import SkippedCell
from lmexp.runs.mirrors.open import end_lost_copies
from lmexp.runs.record import Row
from lmexp.runs.scores import failed_metrics
from lmexp.runs.state import RESULTS, State, StateName
from lmexp.runs.sync import attach_to_agent, check_agent


@dataclass(frozen=True)
class RunResult:
    """What became of one run."""

    name: str
    """The directory's name, as in `gpt_nano-fp32-1cbb2db2f8c4`."""
    path: Path
    """The run directory."""
    state: StateName
    """`done` if it has a record. `oom`, `diverged` and `timeout` are results too, without a record."""
    reason: str | None
    """Why it is not done."""
    values: dict[str, Any]
    """The values of the sweep's axes, as in `{"model.n_layers": 4}`."""
    rows: tuple[Row, ...]
    """The rows of its record: its milestones, then the finished run. Empty if it has no record."""
    is_failure: bool
    """Whether it ended with an error or was cancelled; a trial that a search has pruned is no failure."""
    failed_metrics: dict[str, str]
    """Why metrics of your own have no score, by `task/metric`."""

    @property
    def log(self) -> Path:
        """The file with all that the run printed."""
        return self.path / "log.txt"

    @property
    def record(self) -> Row | None:
        """The row of the finished run, by column (`record["loss"]`); None if it has no record."""
        return self.rows[-1] if self.rows else None


@dataclass(frozen=True)
class SweepResult:
    """What became of a sweep."""

    name: str
    folders: tuple[Path, ...]
    """The folders to report on: the sweep's; of runs that are no sweep, those in which they lie."""
    runs: tuple[RunResult, ...]
    skipped: tuple[SkippedCell, ...]
    """Cells that cannot be run, each with its values and the reason."""
    warnings: tuple[str, ...]

    @property
    def failures(self) -> tuple[RunResult, ...]:
        """The runs that ended with an error or were cancelled."""
        return tuple(run for run in self.runs if run.is_failure)


class Quiet:
    """A listener that says nothing."""

    def started(self, planned: PlannedRun) -> None:
        """A run was started."""

    def ended(self, planned: PlannedRun, state: State) -> None:
        """A run ended."""

    def again(self, planned: PlannedRun, why: str) -> None:
        """A run will be started once more."""

    def waiting(self, running: Sequence[PlannedRun]) -> None:
        """Nothing happened just now."""


def resolve_to_run(
    name: str | None,
    overrides: Sequence[str],
    output_dir: Path,
    config_dir: Path | None = None,
    folder: str | None = None,
    say: Say = silent,
) -> Sweep:
    """Return a sweep that is checked and about to be run; the processes for its runs get ready meanwhile.

    Args:
        name: name or file of a sweep; None for what the overrides alone describe.
        overrides: Hydra overrides; one with several values is an axis.
        output_dir: where the folders of sweeps lie.
        config_dir: a folder with the user's own conf/ and sweeps/.
        folder: name of the sweep's folder [default: the sweep's name].
        say: called with a line about each step that takes long.

    Raises UserError for wrong input, before anything has started.
    """
    # Importing torch for the runs takes seconds, in which texts are tokenised and the other cells resolved.
    resolved = resolve_sweep(name, list(overrides), output_dir, config_dir, folder, say, when_valid=warm_up)
    check_agent([planned.config for planned in resolved.examples], is_search=resolved.search is not None)
    resolved, sharing = settle_sharing(resolved, may_measure=has_work(resolved), say=say)
    if sharing is not None:
        say(sharing.sentence)
    return resolved


def run_resolved(
    resolved: Sweep, policy: Policy | None = None, listener: Listener | None = None, say: Say = silent
) -> SweepResult:
    """Run what is not done yet, and return what became of every run, in the sweep's order.

    Raises UserError, before anything has started, if the outputs cannot be written or a cap leaves nothing to run.
    Raises KeyboardInterrupt when stopped, after the running ones have saved; running it again resumes them.
    """
    done_before = [planned for planned in resolved.runs if planned.run.read_state().state in RESULTS]
    if len(done_before) < len(resolved.runs) and (warning := busy_warning(resolved.runs)):
        say(warning)
    states = run_sweep(resolved, listener or Quiet(), policy or Policy(), _predict(resolved))
    ended = zip(resolved.runs, states, strict=True)
    end_lost_copies([(planned.config, planned.run) for planned, state in ended if state.state != "done"], say)
    for planned in done_before:
        attach_to_agent(planned.run, planned.config, say)
    # A run that was started by itself may lie in another sweep's folder, where it was done before.
    of_runs = sorted({planned.run.path.parent for planned in resolved.runs})
    return SweepResult(
        name=resolved.name,
        folders=(resolved.folder,) if resolved.has_manifest else tuple(of_runs),
        runs=tuple(_result(planned, state) for planned, state in zip(resolved.runs, states, strict=True)),
        skipped=tuple(resolved.skipped),
        warnings=tuple(resolved.warnings),
    )


def _predict(resolved: Sweep) -> Predict | None:
    """Return what predicts final losses, for a search that compares its trials by them; None otherwise."""
    prune = resolved.search.spec.prune if resolved.search else None
    if prune is None or prune.by == "measured":
        return None
    from lmexp.analysis.final_loss.predict import FinalLossPredictor, Prediction

    predictor = FinalLossPredictor(resolved.folder)

    def predict(run: RunDir, share: float) -> float | None:
        made = predictor.predict(run, share)
        return made.loss if isinstance(made, Prediction) else None

    return predict


def _result(planned: PlannedRun, state: State) -> RunResult:
    return RunResult(
        name=planned.run.name,
        path=planned.run.path,
        state=state.state,
        reason=state.reason,
        values=dict(planned.values),
        rows=tuple(planned.run.read_record() or planned.run.read_milestones()),
        is_failure=state.state in ("failed", "cancelled") and not state.is_pruned,
        failed_metrics=failed_metrics(planned.run),
    )
