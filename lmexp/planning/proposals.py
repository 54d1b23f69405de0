"""What `plan` adds to a plan: which part of a sweep fits under a cap, and how well the sweep would identify a law.

A proposal is a command. Before it is shown, that very command is resolved and planned, and the proposal says only what
its plan says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lmexp.config.compose import Values
from lmexp.config.overrides import written
from lmexp.config.schema import RunConfig
from lmexp.config.sweeps import SweepSpec
from lmexp.errors import UserError
from lmexp.messages import Say
from lmexp.planning.cheaper import NOT_NEEDED, Exchange, exchange
from lmexp.planning.cuts import (
    MIN_SCALE,
    Caps,
    Level,
    check_known,
    cut,
    exclusion,
    load,
    scaled_budget,
)
from lmexp.planning.plan import totals
from lmexp.planning.simulate import (
    REHEARSALS,
    SPREAD,
    Assumed,
    Width,
    assumed_law,
    design_problems,
    points_of_plan,
    predict,
    rehearse,
    worse_than_uniform,
)
from lmexp.runs.manifest import SkippedCell
from lmexp.runs.record import Row
from lmexp.units import si

MAX_TRIES = 5
"""Most attempts to lower a factor until its plan fits: warm-up makes seconds not quite proportional to steps."""


@dataclass(frozen=True)
class PlannedCells:
    """A planned sweep, as far as proposals depend on it."""

    rows: list[Row]
    """One per run; for a search, one per corner of its space."""
    cells: list[Values]
    configs: list[RunConfig]
    axes: dict[str, list[Any]]
    skipped: list[SkippedCell]
    trials: int | None = None
    """Trials of a search; None for a sweep whose runs are known."""
    trains_weights: bool = False
    """Whether some runs start from the weights of others."""


class Command(Protocol):
    """A sweep as the command line names it, which can be planned with other overrides."""

    @property
    def name(self) -> str:
        """The sweep's name."""

    @property
    def overrides(self) -> list[str]:
        """The overrides on the command line."""

    @property
    def say(self) -> Say:
        """Receives the reason why something was not proposed."""

    def plan(self, overrides: list[str]) -> PlannedCells:
        """Resolve and plan the sweep with these overrides instead. Raises UserError if none of its cells can run."""

    def spec(self) -> SweepSpec:
        """Return which cells the sweep has, by its file and its overrides."""

    def text(self, overrides: list[str]) -> str:
        """Return the shell command that runs the sweep with these overrides."""


def affordable(command: Command, planned: PlannedCells, caps: Caps) -> dict[str, Any]:
    """Return whether a sweep `fits` under the caps and, if not, `proposals` that do, each with its plan's totals.

    Raises UserError if the caps cannot be compared with the sweep, or if no part of it fits.
    """
    check_known(command.name, planned.rows, caps)
    if planned.trials is not None:
        return _trials(command, planned.trials, planned.rows, caps)
    if planned.trains_weights:
        raise UserError(
            "a sweep that trains the weights of its runs first is not cut; `lmexp sweep` with the same --max-... "
            "starts no run beyond the cap"
        )
    whole = load(planned.rows, caps)
    if whole <= 1:
        return {"fits": True, "share": whole, "proposals": []}
    both = (_subset(command, planned, caps), _scale(command, planned, caps))
    proposals = [proposal for proposal in both if proposal]
    if not proposals:
        least = min(load([row], caps) for row in planned.rows)
        raise UserError(
            f"nothing of {command.name} fits: the cheapest run takes {si(least)} times as much as allowed, and no "
            f"budget is scaled below {MIN_SCALE:g} of what it was"
        )
    return {"fits": False, "share": whole, "proposals": proposals}


def _subset(command: Command, planned: PlannedCells, caps: Caps) -> dict[str, Any] | None:
    """Propose the part of a sweep that fits, if its own plan confirms that; else None."""
    smaller = cut(planned.cells, planned.rows, caps)
    if smaller is None or not smaller.dropped:
        return None
    kept = [override for override in command.overrides if not override.startswith("sweep.exclude=")]
    overrides = [*kept, exclusion(command.spec(), smaller.dropped)]
    after = command.plan(overrides)
    if load(after.rows, caps) > 1:  # a dropped cell was the same run as one that stayed
        return None
    return _proposal("subset", command, overrides, after) | {
        "dropped": _by_axis(smaller.dropped),
        "runs_dropped": len(planned.rows) - len(after.rows),
    }


def _by_axis(dropped: Sequence[Level]) -> dict[str, list[Any]]:
    grouped: dict[str, list[Any]] = {}
    for axis, value in dropped:
        grouped.setdefault(axis, []).append(value)
    return grouped


def _scale(command: Command, planned: PlannedCells, caps: Caps) -> dict[str, Any] | None:
    """Propose one factor on every budget, if its own plan confirms that it fits; else None."""
    spec = command.spec()
    budgets = [config.budget for config in planned.configs]
    factor = 1 / load(planned.rows, caps)
    for _ in range(MAX_TRIES):
        changed = scaled_budget(spec, planned.axes, budgets, factor) if factor >= MIN_SCALE else None
        if changed is None:
            return None
        keys = [override.split("=")[0] for override in changed]
        overrides = [override for override in command.overrides if override.split("=")[0] not in keys] + changed
        try:
            shorter = command.plan(overrides)
        except UserError as problem:
            command.say(f"no common factor on the budget: {problem}")
            return None
        if shorter.skipped != planned.skipped or any(row["train_flops"] is None for row in shorter.rows):
            return None
        share = load(shorter.rows, caps)
        if share <= 1:
            return _proposal("scale", command, overrides, shorter) | {"factor": factor}
        factor *= 0.999 / share
    return None


def _trials(command: Command, trials: int, rows: list[Row], caps: Caps) -> dict[str, Any]:
    """Return how many trials of a search fit, each as expensive as the most expensive corner of its space."""
    largest = max(load([row], caps) for row in rows)
    fitting = trials if largest * trials <= 1 else int(1 / largest)
    if fitting < 1:
        raise UserError(
            f"not one trial of {command.name} is sure to fit: the largest takes {si(largest)} times the cap"
        )
    if fitting >= trials:
        return {"fits": True, "share": largest * trials, "proposals": []}
    overrides = [override for override in command.overrides if not override.startswith("sweep.search.trials=")]
    overrides.append(f"sweep.search.trials={fitting}")
    proposal = {"kind": "trials", "trials": fitting, "words": overrides, "command": command.text(overrides)}
    return {"fits": False, "share": largest * trials, "proposals": [proposal]}


def _proposal(kind: str, command: Command, overrides: list[str], planned: PlannedCells) -> dict[str, Any]:
    return {
        "kind": kind,
        "words": overrides,
        "command": command.text(overrides),
        "runs": len(planned.cells),
        "total": totals(planned.rows),
    }


def simulated(command: Command, planned: PlannedCells, law: str, noise: float, target: float | None) -> dict[str, Any]:
    """Return how well a sweep's runs would identify an assumed law, and a cheaper sweep that does as well, if any.

    Raises UserError for a law that cannot be read, and for a sweep whose sizes or tokens are not known.
    """
    assumed = assumed_law(law, noise)
    if planned.trials is not None:
        raise UserError("--law judges a design, and a search chooses its cells as it goes")
    if planned.trains_weights:
        raise UserError("--law judges runs from scratch, and this sweep starts some from the weights of others")
    points = points_of_plan(planned.rows, assumed, command.name)
    aim = SPREAD * float(points.flops.max()) if target is None else target
    if not (math.isfinite(aim) and aim > 0):
        raise UserError(f"--target-flops {aim:g}: give a number above 0, such as 1e18")
    refusals, warnings = design_problems(points)
    uniform = _uniform_loss(planned.configs)
    document: dict[str, Any] = {
        "law": assumed.law.name, "formula": assumed.law.formula, "source": assumed.source, "noise": noise,
        "theta": dict(zip(assumed.law.parameters, assumed.theta.tolist(), strict=True)),
        "target_flops": aim, "runs": len(points), "refusals": list(refusals), "warnings": list(warnings),
        "uniform_loss": uniform, "law_warning": None if uniform is None else worse_than_uniform(points, uniform),
        "widths": None, "rehearsals": 0, "asked_rehearsals": 0, "cheaper": None,
    }  # fmt: skip
    if refusals:
        return document
    expected, fitted = rehearse(points, assumed, aim, predict(points, assumed, aim))
    document |= {"rehearsals": fitted, "asked_rehearsals": REHEARSALS}
    document["widths"] = {
        name: {key: value if value is None or math.isfinite(value) else None for key, value in width._asdict().items()}
        for name, width in expected.items()
    }
    design = exchange(points, assumed, aim)
    cheaper = None if design is None else _exchanged(command, planned, design)
    if cheaper is None:
        return document
    proposal, after = cheaper
    return document | {"cheaper": proposal | _rehearsed(command.name, after, assumed, aim, expected)}


def _uniform_loss(configs: Sequence[RunConfig]) -> float | None:
    """Return the loss of a uniform guess, ln of the largest vocabulary, in nats; None if a task has labels instead."""
    sizes = [config.model.vocab_size or 0 for config in configs if config.task.head == "vocabulary"]
    return math.log(max(sizes)) if len(sizes) == len(configs) and min(sizes, default=0) > 0 else None


def _rehearsed(
    name: str, planned: PlannedCells, assumed: Assumed, aim: float, before: dict[str, Width]
) -> dict[str, Any]:
    """Rehearse a cheaper design, which information alone has chosen, on the very runs that its command would make."""
    points = points_of_plan(planned.rows, assumed, name)
    after, fitted = rehearse(points, assumed, aim, predict(points, assumed, aim))
    ratios = [
        (new.rehearsed * (new.high - new.low)) / (old.rehearsed * (old.high - old.low))
        for name, old in before.items()
        if name not in NOT_NEEDED and (new := after[name]).rehearsed and old.rehearsed
    ]
    return {"rehearsals": fitted, "rehearsed_widest": max(ratios, default=None)}


def _exchanged(command: Command, planned: PlannedCells, design: Exchange) -> tuple[dict[str, Any], PlannedCells] | None:
    """Return a cheaper design as a command whose plan is cheaper, and that plan; None if no overrides express it."""
    if any("budget" in cell for cell in planned.cells):
        return None
    try:
        overrides = _design_overrides(command, planned, design)
        after = command.plan(overrides)
    except UserError as problem:
        command.say(f"a cheaper design exists that no overrides can express: {problem}")
        return None
    spent, spent_after = (math.fsum(row["train_flops"] for row in rows) for rows in (planned.rows, after.rows))
    if spent_after >= spent or len(after.rows) != len(planned.rows) - len(design.dropped) + len(design.added):
        command.say("a cheaper design exists that no overrides can express: put its axes into the sweep's file")
        return None
    proposal = _proposal("exchange", command, overrides, after) | {
        "dropped": len(design.dropped),
        "added": len(design.added),
        "flops_before": spent,
        "total_before": totals(planned.rows),
        "widest": design.widest,
    }
    return proposal, after


def _design_overrides(command: Command, planned: PlannedCells, design: Exchange) -> list[str]:
    """Return the overrides that leave out the dropped cells of a design and add its new ones as points."""
    spec = command.spec()
    points = []
    for position, tokens in design.added:
        config = planned.configs[position]
        own = {key: value for key, value in planned.cells[position].items() if not key.startswith("budget.")}
        others = dict.fromkeys(f"budget.{kind}" for kind in config.budget.amount)
        steps = max(round(tokens / config.batch.tokens), 1)
        points.append(own | others | {"budget.tokens": steps * config.batch.tokens})
    dropped = [planned.cells[position] for position in design.dropped]
    replaced = ("sweep.exclude", "sweep.points")
    overrides = [override for override in command.overrides if override.split("=")[0] not in replaced]
    overrides.append(f"sweep.exclude={written([*spec.exclude, *dropped])}")
    return overrides + ([f"sweep.points={written([*spec.points, *points])}"] if points else [])
