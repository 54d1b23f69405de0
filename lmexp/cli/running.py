"""What `train`, `sweep` and `retry` share: say the plan, run, report, and name the runs that failed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lmexp.cli.app import err, message_of, say, say_all
from lmexp.cli.reporting import show_report
from lmexp.errors import UserError
from lmexp.messages import say_first

if TYPE_CHECKING:
    from lmexp.launch.policy import Policy
    from lmexp.resolve.planned import Sweep
    from lmexp.study.run import SweepResult


def run_and_report(
    resolved: "Sweep", policy: "Policy", as_json: bool, folders: list[Path] | None = None, is_one_run: bool = False
) -> None:
    """Run a sweep and report on its folders, or on those that are given; exit with 1 if a run failed.

    `is_one_run` says that a single run was asked for.
    """
    result = run_with_progress(resolved, policy)
    show_report(folders or list(result.folders), as_json=as_json)
    end_with_failures(result, is_one_run)


def run_looks_and_report(resolved: "Sweep", policy: "Policy", as_json: bool) -> None:
    """Run a sweep whose seeds are added after looks at the results, and report; exit with 1 if a run failed."""
    from lmexp.study.seeds import cost_of_looks, run_with_looks

    say_all(cost_of_looks(resolved))
    try:
        result = run_with_looks(resolved, lambda batch: run_with_progress(batch, policy), say)
    except KeyboardInterrupt:  # between two batches
        say("stopped; the same command resumes the sweep")
        raise typer.Exit(130) from None
    show_report(list(result.folders), as_json=as_json)
    end_with_failures(result)


def run_with_progress(resolved: "Sweep", policy: "Policy", what_follows: Sequence[str] = ()) -> "SweepResult":
    """Say the plan of a sweep, run it, and return what became of its runs; exit if it is stopped or breaks off.

    The plan ends with the sentences about what follows the runs.
    """
    from lmexp.launch.progress import SweepProgress
    from lmexp.study.plan import plan_resolved
    from lmexp.study.run import run_resolved

    planned = plan_resolved(resolved)
    say_all([*planned.notices, planned.sentence, *what_follows])
    progress = SweepProgress(err, resolved)
    try:
        with progress:
            return run_resolved(resolved, policy, progress, say)
    except KeyboardInterrupt:
        say("stopped; the same command resumes the sweep")
        raise typer.Exit(130) from None
    except (OSError, UserError) as problem:
        if not progress.has_started or "--debug" in sys.argv:
            raise
        say(f"error: {message_of(problem)}; the sweep has stopped, and the same command resumes it")
        raise typer.Exit(1) from None


def end_with_failures(result: "SweepResult", is_one_run: bool = False) -> None:
    """Name the runs that failed, and exit with 1 if there are any.

    A run that is out of memory or time, or has diverged, is a row of a sweep and not a failure. If it is the only run
    that was asked for (`is_one_run`), there is no result at all, and the exit code says so.
    """
    from lmexp.runs.state import RESULTS

    no_scores = [
        f"{run.name}: score/{metric} is missing, because its metric failed: {reason}"
        for run in result.runs
        for metric, reason in run.failed_metrics.items()
    ]
    say_first(no_scores, "scores.json in the directory of each run has its reasons", say)
    failures = [f"{run.name} {run.state}: {run.reason}; its log: {run.log}" for run in result.failures]
    say_first(failures, f"`lmexp status {result.name}` shows all", say)
    without_result = [run for run in result.runs if is_one_run and run.state in RESULTS and run.state != "done"]
    for run in without_result:
        say(f"{run.name} has no result, {run.state}: {run.reason}; its log: {run.log}")
    if result.failures or without_result:
        raise typer.Exit(1)
