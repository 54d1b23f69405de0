"""The evaluations that a paper's claims need: of every finished run, one after another, in the process that judges.

An evaluation whose scores a run keeps already is not made again. `lmexp eval RUN` makes one anew.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lmexp.config.failures import explain
from lmexp.errors import UserError
from lmexp.messages import Say, silent
from lmexp.papers.paper import Evaluation
from lmexp.runs.directory import RunDir
from lmexp.units import counted

if TYPE_CHECKING:
    from lmexp.resolve.planned import Sweep
    from lmexp.study.run import RunResult


@dataclass(frozen=True)
class FailedEvaluation:
    """An evaluation that gave no scores."""

    run: str
    """The run's name."""
    evaluation: str
    """What was to be measured, as in `precision int4`."""
    reason: str

    def __str__(self) -> str:
        """One line for the person at the terminal."""
        return f"{self.run} could not be evaluated ({self.evaluation}): {self.reason}"


def plan_evaluations(sweep: "Sweep", evaluations: Sequence[Evaluation], config_dir: Path | None = None) -> list[str]:
    """Return a sentence about the evaluations that will follow the runs; no sentence if the paper needs none.

    Raises UserError for one that these runs cannot have, such as another task. No run needs to have started.
    """
    if not evaluations:
        return []
    from lmexp.inference.evaluate import check_evaluation

    for at, evaluation in enumerate(evaluations):
        for planned in sweep.examples:
            try:
                check_evaluation(planned.run.name, planned.config, evaluation.overrides, evaluation.scoring, config_dir)
            except UserError as problem:
                raise UserError(f"paper.evaluations.{at}: {problem}") from None
    runs = [planned.run for planned in sweep.runs]
    total, missing = len(runs) * len(evaluations), len(list(_missing(runs, evaluations)))
    listed = "; ".join(evaluation.in_words for evaluation in evaluations)
    if runs and not missing:
        return [f"their evaluations are there: {total}, of each run {len(evaluations)} ({listed})"]
    count = f"{counted(missing, 'evaluation')}, " if runs else ""
    there = f"; {total - missing} are there" if missing < total else ""
    return [f"then {count}one after another on this machine: of each run {len(evaluations)} ({listed}){there}"]


def evaluate_runs(
    runs: Iterable["RunResult"],
    evaluations: Sequence[Evaluation],
    output_dir: Path,
    config_dir: Path | None = None,
    say: Say = silent,
) -> tuple[FailedEvaluation, ...]:
    """Make the evaluations that are missing of the runs that are done, and return those that failed.

    The scores of each join its run's record at once, so that stopping loses none but the one being measured.
    """
    done = [RunDir(run.path) for run in runs if run.state == "done"] if evaluations else []
    missing = list(_missing(done, evaluations))
    if not missing:
        return ()
    from lmexp.inference.evaluate import evaluate

    failed = []
    for at, (run, evaluation) in enumerate(missing, 1):
        label = f"evaluation {at}/{len(missing)}  {run.name}  {evaluation.in_words}"
        try:
            words, scoring = list(evaluation.overrides), evaluation.scoring
            kept = evaluate(str(run.path), words, output_dir, config_dir, scoring, say)
        except Exception as problem:  # whatever goes wrong with one run, the others get their scores
            failed.append(FailedEvaluation(run.name, evaluation.in_words, explain(problem)))
            say(f"{label}  failed")
        else:
            say(f"{label}  loss {kept['scores']['loss']:.4f}")
    return tuple(failed)


def _missing(runs: Iterable[RunDir], evaluations: Sequence[Evaluation]) -> Iterator[tuple[RunDir, Evaluation]]:
    """Yield each run with each evaluation whose scores it does not keep."""
    from lmexp.inference.evaluate import is_evaluated

    for run in runs:
        for evaluation in evaluations:
            if not is_evaluated(run, evaluation.overrides, evaluation.scoring):
                yield run, evaluation
