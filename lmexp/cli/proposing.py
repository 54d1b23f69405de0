"""What `plan` proposes besides the plan: what of a sweep fits under a cap.

A proposal is a command. Before it is shown, that very command is resolved and planned, and only what the plan of it
says is said.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmexp.cli.app import OUTPUTS, say
from lmexp.cli.showing import plan_rows
from lmexp.errors import UserError
from lmexp.units import si

if TYPE_CHECKING:
    from lmexp.analysis.affordable import Caps, Level
    from lmexp.config.sweeps import SweepSpec
    from lmexp.launch.resolve import Sweep
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
        from lmexp.launch.resolve import resolve_sweep

        resolved = resolve_sweep(self.name, words, self.outputs, self.config_dir)
        return resolved, plan_rows(resolved, self.outputs)

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
    from lmexp.analysis.affordable import LEAST_SCALE, check_known, load

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
    from lmexp.analysis.affordable import cut, exclusion, load

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
    from lmexp.analysis.affordable import LEAST_SCALE, load, scaled_budget

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
    from lmexp.analysis.affordable import load

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
    from lmexp.analysis.planner import totals

    return {
        "kind": kind,
        "words": words,
        "command": asked.command(words),
        "runs": len(resolved.runs),
        "total": totals(rows),
    }
