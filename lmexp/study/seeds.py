"""`--seeds auto`: train a few seeds of each arm, then more of those that may be the best, until the looks decide."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from lmexp.analysis.effects.looks import START, Look, look_in_words, looks_of
from lmexp.analysis.table import load_study
from lmexp.config import paths
from lmexp.config.compose import Composer, allow_code
from lmexp.config.overrides import split_words
from lmexp.errors import UserError
from lmexp.launch.policy import Policy
from lmexp.messages import Say, silent
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.runs.columns import column
from lmexp.runs.coordinators import coordinating, last_request
from lmexp.runs.manifest import LookRule, read_manifest
from lmexp.runs.state import RESULTS
from lmexp.study.plan import plan_resolved
from lmexp.study.run import SweepResult, resolve_to_run
from lmexp.units import counted

SEED = "seed"


def look_rule(seeds: str | None, difference: float | None, cap: int | None, quality: str | None) -> LookRule | None:
    """Return the rule that these options describe; None if seeds are not to be added.

    Raises UserError for options that are wrong or do not go together.
    """
    if seeds is None:
        if difference is not None or cap is not None or quality is not None:
            raise UserError("a difference, a cap of seeds and their quality need --seeds auto")
        return None
    if seeds != "auto":
        raise UserError(f"--seeds {seeds}: only auto is possible here; a number is the override sweep.seeds={seeds}")
    if difference is None:
        raise UserError("--seeds auto needs --difference, the smallest difference in the quality that matters")
    if not 0 < difference < float("inf"):
        raise UserError(f"--difference must be a number above 0, and it is {difference}")
    cap = 10 if cap is None else cap
    if not START < cap <= 1000:
        raise UserError(f"--cap must be more than the {START} seeds of the start and at most 1000, and it is {cap}")
    quality = quality or "loss"
    if column(quality).better is None:
        raise UserError(f"--quality {quality}: arms are compared by one column that is a quality, such as loss")
    try:
        return LookRule(quality=quality, difference=difference, cap=cap)
    except ValidationError as problem:
        raise UserError(str(problem)) from None


def check_policy(policy: Policy | None) -> None:
    """Raise UserError for a policy under which runs may end without a result to look at."""
    if policy and policy.stop_if:
        raise UserError("--stop-if and --seeds auto do not go together: a run that was stopped has no result")


def resolve_with_looks(
    name: str | None,
    overrides: Sequence[str],
    rule: LookRule,
    output_dir: Path,
    config_dir: Path | None = None,
    folder: str | None = None,
    say: Say = silent,
) -> Sweep:
    """Return a sweep with all runs that the rule allows, checked; see `resolve_to_run` for the other arguments.

    Raises UserError for wrong input, and if an earlier command looked at these runs by another rule.
    """
    words = [word.lstrip("+~").split("=")[0] for word in overrides]
    if given := [word for word in words if word in (SEED, "sweep.seeds")]:
        raise UserError(f"--seeds auto chooses the seeds, and {given[0]} is given too")
    _refuse_search(name, overrides, config_dir)
    resolved = resolve_to_run(name, [*overrides, f"sweep.seeds={rule.cap}"], output_dir, config_dir, folder, say)
    arms = _arms(resolved.runs)
    if any(sorted(run.values[SEED] for run in arm) != list(range(rule.cap)) for arm in arms):
        raise UserError("--seeds auto chooses the seeds, and the sweep has seeds of its own, or cells that cannot run")
    if len(arms) < 2:
        raise UserError("--seeds auto compares arms, and this sweep has only one")
    if any(run.needs for run in resolved.runs) or len({run.config.task.name for run in resolved.runs}) > 1:
        raise UserError("--seeds auto compares all arms by one quality, and this sweep has runs of several tasks")
    earlier = read_manifest(resolved.folder)
    known = {cell.run_id for cell in earlier.cells} if earlier else set()
    if earlier and earlier.looks not in (None, rule) and known & {run.identity for run in resolved.runs}:
        was = earlier.looks
        assert was is not None
        raise UserError(
            f"these runs were looked at with --difference {was.difference:g} --cap {was.cap} --quality {was.quality}; "
            "another rule now would not keep its error rate"
        )
    return replace(resolved, looks=rule)


def cost_of_looks(resolved: Sweep) -> list[str]:
    """Return what the sweep takes at the start and at most, as sentences."""
    first, most = plan_resolved(_batch(resolved, [])), plan_resolved(resolved)
    return [*most.notices, f"at the start, {first.sentence}", f"at most, {most.sentence}"]


def run_with_looks(resolved: Sweep, run: Callable[[Sweep], SweepResult], say: Say = silent) -> SweepResult:
    """Run batch after batch until the looks decide; return what became of all runs that were started.

    If runs of a batch have no result (failed, cancelled, or not started because of a cap on what is spent), there is no
    look, and no seed follows. The same command goes on from there: the looks follow from the records alone.
    From the first look on, this process counts as a coordinator of the sweep also between its batches.

    Args:
        resolved: all runs that the rule allows.
        run: runs a batch.
        say: receives a line about each look.

    Raises UserError if the arms cannot be compared, and KeyboardInterrupt on `lmexp cancel` between two batches.
    """
    before = last_request(resolved.folder)
    result = run(_batch(resolved, []))
    with coordinating(resolved.folder):
        return _after_looks(resolved, run, result, before, say)


def _after_looks(
    resolved: Sweep, run: Callable[[Sweep], SweepResult], result: SweepResult, before: str | None, say: Say
) -> SweepResult:
    """Look at the result of the first batch, and run the batches that follow; `before` is a request to stop of old."""
    rule = resolved.looks
    assert rule is not None, "the sweep has a rule"
    made: list[Look] = []
    while True:
        if missing := sum(one.state not in RESULTS for one in result.runs):
            runs_have = counted(missing, "run", "has", of=len(result.runs))
            say(f"no look at the seeds: {runs_have} no result; the same command goes on")
            return result
        study = load_study([resolved.folder])
        if len(study.rankable(rule.quality)) > 1:
            raise UserError(f"the arms cannot be compared by {rule.quality}; `lmexp report {resolved.name}` says why")
        now = looks_of(study, rule)
        if len(now) <= len(made):
            raise UserError(f"no arm has two results by {rule.quality}, so no seeds are added")
        for look in now[len(made) :]:
            say(look_in_words(look, rule))
        made = now
        if made[-1].is_last:
            return result
        if last_request(resolved.folder) != before:
            raise KeyboardInterrupt
        result = run(_batch(resolved, made))


def _refuse_search(name: str | None, overrides: Sequence[str], config_dir: Path | None) -> None:
    """Raise UserError if the sweep is a search."""
    allow_code(list(overrides), config_dir)
    roots = paths.search_roots(config_dir)
    file = None if name is None else paths.find_sweep(name, roots)[1]
    words, _ = split_words(list(overrides))
    if (file or words) and Composer(roots, file, words).sweep_spec().search is not None:
        raise UserError(
            f"--seeds auto adds seeds to the cells of a grid, and {name or 'this sweep'} is a search, which chooses "
            "its cells: run the search first, then a grid of its best settings with --seeds auto"
        )


def _arms(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Return the runs of each setting of everything but the seed."""
    arms: dict[str, list[PlannedRun]] = {}
    for planned in runs:
        arms.setdefault(repr({k: v for k, v in planned.values.items() if k != SEED}), []).append(planned)
    return list(arms.values())


def _batch(resolved: Sweep, made: Sequence[Look]) -> Sweep:
    """Return the sweep with the runs that the next look needs, and all runs before them."""
    runs = []
    for arm in _arms(resolved.runs):
        ids = {planned.identity for planned in arm}
        in_looks = [look for look in made if any(ids & of_arm for of_arm in look.runs)]
        seeds = in_looks[-1].seeds + 1 if in_looks else START
        runs += [planned for planned in arm if planned.values[SEED] < seeds]
    axes = resolved.axes | {SEED: list(range(max(planned.values[SEED] for planned in runs) + 1))}
    return replace(resolved, runs=runs, axes=axes)
