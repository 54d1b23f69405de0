"""What `plan` says besides the plan: what of a sweep fits under a cap, and how well it would tell a law.

A proposal is a command. Before it is shown, that very command is resolved and planned, and only what the plan of it
says is said.
"""

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmexp.cli.app import OUTPUTS, say
from lmexp.errors import UserError
from lmexp.units import si

if TYPE_CHECKING:
    from lmexp.config.sweeps import SweepSpec
    from lmexp.planning.cheaper import Exchange
    from lmexp.planning.cuts import Caps, Level
    from lmexp.resolve.planned import Sweep
    from lmexp.runs.record import Row

TRIES = 5
"""How often a factor is lowered until its plan fits: warm-up makes seconds not quite proportional to steps."""


@dataclass(frozen=True)
class Asked:
    """A sweep as the command line names it."""

    name: str
    words: list[str]
    outputs: Path
    config_dir: Path | None

    def plan(self, words: list[str]) -> "tuple[Sweep, list[Row]]":
        """Resolve the sweep with these words instead, and plan it."""
        from lmexp.study.plan import plan_sweep

        planned = plan_sweep(self.name, words, self.outputs, self.config_dir)
        return planned.sweep, list(planned.rows)

    def spec(self) -> "SweepSpec":
        """Return which cells the sweep has, by its file and the words."""
        from lmexp.config import paths
        from lmexp.config.compose import Composer, split_words

        roots = paths.search_roots(self.config_dir)
        return Composer(roots, paths.find_sweep(self.name, roots)[1], split_words(self.words)[0]).sweep_spec()

    def command(self, words: list[str]) -> str:
        """Return the command that runs the sweep with these words."""
        options = [] if self.outputs == OUTPUTS else ["--output-dir", str(self.outputs)]
        options += [] if self.config_dir is None else ["--config-dir", str(self.config_dir)]
        return shlex.join(["lmexp", "sweep", self.name, *words, *options])


def affordable(asked: Asked, resolved: "Sweep", rows: "list[Row]", caps: "Caps") -> dict[str, Any]:
    """Return what of a sweep fits under the caps: `fits`, and if it does not, `proposals`, each with its plan's totals.

    Raises UserError where the caps cannot be held against the sweep, or nothing of it fits.
    """
    from lmexp.planning.cuts import LEAST_SCALE, check_known, load

    check_known(asked.name, rows, caps)
    if resolved.search:
        return _trials(asked, resolved.search.spec.trials, rows, caps)
    if any(planned.needs for planned in resolved.runs):
        raise UserError(
            "a sweep that trains the weights of its runs first is not cut; `lmexp sweep` with the same --max-... "
            "starts no run beyond it"
        )
    whole = load(rows, caps)
    if whole <= 1:
        return {"fits": True, "share": whole, "proposals": []}
    proposals = [
        found for found in (_subset(asked, resolved, rows, caps), _scale(asked, resolved, rows, caps)) if found
    ]
    if not proposals:
        least = min(load([row], caps) for row in rows)
        raise UserError(
            f"nothing of {asked.name} fits: the cheapest run takes {si(least)} times as much as allowed, and no budget "
            f"is scaled below {LEAST_SCALE:g} of what it was"
        )
    return {"fits": False, "share": whole, "proposals": proposals}


def _subset(asked: Asked, resolved: "Sweep", rows: "list[Row]", caps: "Caps") -> dict[str, Any] | None:
    """Return the cut of a sweep that fits, once its own plan says so."""
    from lmexp.planning.cuts import cut, exclusion, load

    cells = [planned.values for planned in resolved.runs]
    found = cut(cells, rows, caps)
    if found is None or not found.dropped:
        return None
    kept = [word for word in asked.words if not word.startswith("sweep.exclude=")]
    words = [*kept, exclusion(asked.spec(), found.dropped)]
    smaller, planned = asked.plan(words)
    if load(planned, caps) > 1:  # a cell that was left out was the same run as one that stayed
        return None
    return _proposal("subset", asked, words, smaller, planned) | {
        "dropped": _by_axis(found.dropped),
        "runs_dropped": len(rows) - len(planned),
    }


def _by_axis(dropped: "list[Level]") -> dict[str, list[Any]]:
    grouped: dict[str, list[Any]] = {}
    for axis, value in dropped:
        grouped.setdefault(axis, []).append(value)
    return grouped


def _scale(asked: Asked, resolved: "Sweep", rows: "list[Row]", caps: "Caps") -> dict[str, Any] | None:
    """Return the factor on every budget that fits, once the plan says so."""
    from lmexp.planning.cuts import LEAST_SCALE, load, scaled_budget

    spec = asked.spec()
    budgets = [planned.config.budget for planned in resolved.runs]
    factor = 1 / load(rows, caps)
    for _ in range(TRIES):
        changed = scaled_budget(spec, resolved.axes, budgets, factor) if factor >= LEAST_SCALE else None
        if changed is None:
            return None
        keys = [word.split("=")[0] for word in changed]
        words = [word for word in asked.words if word.split("=")[0] not in keys] + changed
        try:
            shorter, planned = asked.plan(words)
        except UserError as problem:
            say(f"no common factor on the budget: {problem}")
            return None
        if shorter.skipped != resolved.skipped or any(row["train_flops"] is None for row in planned):
            return None
        share = load(planned, caps)
        if share <= 1:
            return _proposal("scale", asked, words, shorter, planned) | {"factor": factor}
        factor *= 0.999 / share
    return None


def _trials(asked: Asked, trials: int, rows: "list[Row]", caps: "Caps") -> dict[str, Any]:
    """Return how many trials of a search fit, each as dear as the dearest corner of its space."""
    from lmexp.planning.cuts import load

    dearest = max(load([row], caps) for row in rows)
    most = trials if dearest * trials <= 1 else int(1 / dearest)
    if most < 1:
        raise UserError(f"not one trial of {asked.name} is sure to fit: the largest takes {si(dearest)} times the cap")
    if most >= trials:
        return {"fits": True, "share": dearest * trials, "proposals": []}
    words = [word for word in asked.words if not word.startswith("sweep.search.trials=")]
    words.append(f"sweep.search.trials={most}")
    proposal = {"kind": "trials", "trials": most, "words": words, "command": asked.command(words)}
    return {"fits": False, "share": dearest * trials, "proposals": [proposal]}


def _proposal(kind: str, asked: Asked, words: list[str], resolved: "Sweep", rows: "list[Row]") -> dict[str, Any]:
    from lmexp.planning.plan import totals

    return {
        "kind": kind,
        "words": words,
        "command": asked.command(words),
        "runs": len(resolved.runs),
        "total": totals(rows),
    }


def simulated(
    asked: Asked, resolved: "Sweep", rows: "list[Row]", law: str, noise: float, target: float | None
) -> dict[str, Any]:
    """Return how well a sweep's runs would tell an assumed law, and a cheaper sweep that tells as much, if any.

    Raises UserError for a law that cannot be read, and a sweep whose sizes or tokens are not known.
    """
    from lmexp.planning.cheaper import NOT_NEEDED, exchange
    from lmexp.planning.simulate import (
        REHEARSALS,
        SPREAD,
        assumed_law,
        design_problems,
        foresee,
        points_of_plan,
        rehearse,
    )

    assumed = assumed_law(law, noise)
    if resolved.search:
        raise UserError("--law judges a design, and a search chooses its cells as it goes")
    if any(planned.needs for planned in resolved.runs):
        raise UserError("--law judges runs from scratch, and this sweep begins some with the weights of others")
    points = points_of_plan(rows, assumed, asked.name)
    aim = SPREAD * float(points.flops.max()) if target is None else target
    if not (math.isfinite(aim) and aim > 0):
        raise UserError(f"--target-flops {aim:g}: a number above 0, as in 1e18")
    refusals, warnings = design_problems(points)
    found: dict[str, Any] = {
        "law": assumed.law.name, "formula": assumed.law.formula, "source": assumed.source, "noise": noise,
        "theta": dict(zip(assumed.law.parameters, assumed.theta.tolist(), strict=True)),
        "target_flops": aim, "runs": len(points), "refusals": list(refusals), "warnings": list(warnings),
        "widths": None, "rehearsals": 0, "asked_rehearsals": 0, "cheaper": None,
    }  # fmt: skip
    if refusals:
        return found
    expected, fitted = rehearse(points, assumed, aim, foresee(points, assumed, aim))
    found |= {"rehearsals": fitted, "asked_rehearsals": REHEARSALS}
    found["widths"] = {
        name: {key: value if value is None or math.isfinite(value) else None for key, value in width._asdict().items()}
        for name, width in expected.items()
    }
    cheaper = exchange(points, assumed, aim)
    other = None if cheaper is None else _exchanged(asked, resolved, rows, cheaper)
    if other is None:
        return found
    # Chosen by information alone, it is rehearsed as well, on the very runs that its command would make.
    proposal, planned = other
    again = points_of_plan(planned, assumed, asked.name)
    judged, tried = rehearse(again, assumed, aim, foresee(again, assumed, aim))
    ratios = [
        (new.rehearsed * (new.high - new.low)) / (old.rehearsed * (old.high - old.low))
        for name, old in expected.items()
        if name not in NOT_NEEDED and (new := judged[name]).rehearsed and old.rehearsed
    ]
    widest = max(ratios, default=None)
    return found | {"cheaper": proposal | {"rehearsals": tried, "rehearsed_widest": widest}}


def _exchanged(
    asked: Asked, resolved: "Sweep", rows: "list[Row]", found: "Exchange"
) -> "tuple[dict[str, Any], list[Row]] | None":
    """Return a cheaper design as a command whose own plan is cheaper, and that plan; None where no words can say it."""
    from lmexp.config.words import written
    from lmexp.planning.plan import totals

    if any("budget" in planned.values for planned in resolved.runs):
        return None
    spec = asked.spec()
    points = []
    for position, tokens in found.added:
        planned = resolved.runs[position]
        own = {key: value for key, value in planned.values.items() if not key.startswith("budget.")}
        others = dict.fromkeys(f"budget.{kind}" for kind in planned.config.budget.model_dump(exclude_none=True))
        batch = planned.config.batch.tokens
        points.append(own | others | {"budget.tokens": max(round(tokens / batch), 1) * batch})
    dropped = [resolved.runs[position].values for position in found.dropped]
    words = [word for word in asked.words if word.split("=")[0] not in ("sweep.exclude", "sweep.points")]
    words.append(f"sweep.exclude={written([*spec.exclude, *dropped])}")
    words += [f"sweep.points={written([*spec.points, *points])}"] if points else []
    try:
        other, planned_rows = asked.plan(words)
    except UserError as problem:
        say(f"a cheaper design was found that no words can say: {problem}")
        return None
    before, after = (math.fsum(row["train_flops"] for row in some) for some in (rows, planned_rows))
    if after >= before or len(planned_rows) != len(rows) - len(found.dropped) + len(found.added):
        say("a cheaper design was found that no words can say: put its axes into the sweep's file")
        return None
    proposal = _proposal("exchange", asked, words, other, planned_rows) | {
        "dropped": len(found.dropped),
        "added": len(found.added),
        "flops_before": before,
        "total_before": totals(rows),
        "widest": found.widest,
    }
    return proposal, planned_rows
