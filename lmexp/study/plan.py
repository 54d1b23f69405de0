"""Plan a study: what each of its runs will take, before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from lmexp.config.checks import device_share
from lmexp.config.launchers import AUTO
from lmexp.launch.probe import known_probes, measure, shape
from lmexp.launch.processes import warm_up
from lmexp.launch.sharing import Sharing, best_sharing, is_auto, settle_sharing
from lmexp.messages import Say, silent
from lmexp.planning.plan import CostedRun, plan, search_totals, totals
from lmexp.report.terminal.plan import plan_sentence, search_sentence
from lmexp.resolve.planned import Sweep
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.manifest import SkippedCell
from lmexp.runs.probes import Probe
from lmexp.runs.record import Row

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep will take."""

    sweep: Sweep
    rows: tuple[Row, ...]
    """One for each run: its values of the axes, then parameters, FLOPs, memory, seconds, kWh and dollars, null if not
    known. A search has two rows: for the least and for the most work that a trial can be."""
    sharing: Sharing | None = None
    """How many runs side by side make the best use of a device; None if that was not measured."""

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.sweep.name

    @cached_property
    def total(self) -> Row:
        """The sums over all runs; of a search, what it takes at most. Null if a run's part is not known."""
        search = self.sweep.search
        return search_totals(self.rows, search.spec) if search else totals(self.rows)

    @property
    def skipped(self) -> tuple[SkippedCell, ...]:
        """Cells that cannot be run, each with its values and the reason."""
        return tuple(self.sweep.skipped)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the sweep, as sentences."""
        return tuple(self.sweep.warnings)

    @property
    def sentence(self) -> str:
        """The plan in one line."""
        search = self.sweep.search
        return search_sentence(self.name, search.spec, self.rows) if search else plan_sentence(self.name, self.rows)

    @property
    def notices(self) -> list[str]:
        """The warnings and the skipped cells, a line each."""
        lines = [f"warning: {warning}" for warning in self.warnings]
        for cell in self.skipped:
            values = " ".join(f"{key}={value}" for key, value in cell.values.items())
            lines.append(f"skipped: {values}: {cell.reason}")
        return lines

    @property
    def advice(self) -> str | None:
        """How many runs to train side by side, as a sentence; None if that is not known."""
        if self.sharing is None:
            return None
        uses_it = self.sharing.runs == 1 or any(device_share(p.config, p.device.kind) < 1 for p in self.sweep.examples)
        key = f"launcher.devices_per_run={AUTO}"
        return f"{self.sharing.sentence}{'' if uses_it else f': {key} uses that'}"

    @property
    def table(self) -> "pd.DataFrame":
        """The rows as a DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows).convert_dtypes()


def plan_sweep(
    name: str,
    overrides: Sequence[str],
    output_dir: Path,
    config_dir: Path | None = None,
    measured: bool = False,
    say: Say = silent,
) -> SweepPlan:
    """Resolve a sweep and return what each of its runs will take; see `resolve_sweep` for the arguments.

    With `measured`, a few steps of each distinct shape are trained first, so that seconds, kWh and dollars are known,
    and how many runs side by side make the best use of a device.
    Raises UserError for wrong input.
    """
    ready = warm_up if measured else (lambda: None)
    resolved = resolve_sweep(name, list(overrides), output_dir, config_dir, say=say, when_valid=ready)
    leaves_share = any(is_auto(planned.config) for planned in resolved.examples)
    resolved, sharing = settle_sharing(resolved, measured, say)
    if leaves_share and sharing is None and not measured:
        resolved.warnings.append(
            f"launcher.devices_per_run={AUTO} is not measured yet, so this plan is for one run at a time on a device; "
            "--measure measures it, and so does `lmexp sweep`"
        )
    now: dict[str, Probe] = {}
    if measured:
        now = measure(resolved.examples, output_dir, say)
        sharing = sharing or best_sharing(resolved, may_measure=True, say=say)
    return plan_resolved(resolved, sharing, now)


def plan_resolved(
    resolved: Sweep, sharing: Sharing | None = None, measured: Mapping[str, Probe] = MappingProxyType({})
) -> SweepPlan:
    """Return what each run of a resolved sweep will take, as far as it is known.

    `measured` is what this command has measured, by shape; some of it may not have been kept.
    """
    kept = known_probes(resolved.examples, resolved.folder.parent)
    probes = [measured.get(shape(each), probe) for each, probe in zip(resolved.examples, kept, strict=True)]
    rows = plan(
        CostedRun(planned.values, planned.config, planned.horizon, planned.device, probe)
        for planned, probe in zip(resolved.examples, probes, strict=True)
    )
    return SweepPlan(resolved, tuple(rows), sharing)
