"""A sweep as the command line names it, for proposals to plan with other overrides."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.overrides import split_words
from lmexp.config.sweeps import SweepSpec
from lmexp.cost.elsewhere import HardwareElsewhere
from lmexp.messages import Say, silent
from lmexp.planning.proposals import PlannedCells
from lmexp.study.plan import SweepPlan, plan_sweep


@dataclass(frozen=True)
class PlannedCommand:
    """`lmexp sweep NAME OVERRIDES OPTIONS`, and the plans of the same command with other overrides."""

    name: str
    overrides: list[str]
    output_dir: Path
    config_dir: Path | None = None
    options: list[str] = field(default_factory=list)
    """Options of the command that proposals keep, such as --output-dir."""
    say: Say = silent
    elsewhere: HardwareElsewhere | None = None
    """The hardware that the plans are for; None for this machine."""

    def plan(self, overrides: list[str]) -> PlannedCells:
        """Resolve the sweep with these overrides instead, and plan it. Raises UserError for wrong input."""
        return self.view(plan_sweep(self.name, overrides, self.output_dir, self.config_dir, elsewhere=self.elsewhere))

    def view(self, plan: SweepPlan) -> PlannedCells:
        """Return a plan as proposals need it."""
        sweep = plan.sweep
        return PlannedCells(
            rows=list(plan.rows),
            cells=[planned.values for planned in sweep.runs],
            configs=[planned.config for planned in sweep.runs],
            axes=sweep.axes,
            skipped=sweep.skipped,
            trials=sweep.search.spec.trials if sweep.search else None,
            trains_weights=any(planned.needs for planned in sweep.runs),
        )

    def spec(self) -> SweepSpec:
        """Return which cells the sweep has, by its file and its overrides."""
        roots = paths.search_roots(self.config_dir)
        return Composer(roots, paths.find_sweep(self.name, roots)[1], split_words(self.overrides)[0]).sweep_spec()

    def text(self, overrides: list[str]) -> str:
        """Return the shell command that runs the sweep with these overrides."""
        return shlex.join(["lmexp", "sweep", self.name, *overrides, *self.options])
