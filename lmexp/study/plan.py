"""Plan a study: what each of its runs will take, before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from lmexp.config.checks import device_share
from lmexp.config.launchers import AUTO
from lmexp.cost.elsewhere import HardwareElsewhere
from lmexp.errors import UserError
from lmexp.launch.placement import Placed, max_at_once, place_runs
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
    elsewhere: HardwareElsewhere | None = None
    """The hardware that is not here, for which the sweep was planned; None for this machine."""

    assumed: Row | None = None
    """What the seconds and dollars of a plan for that hardware rest on, and its hours on the clock."""

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
    elsewhere: HardwareElsewhere | None = None,
) -> SweepPlan:
    """Resolve a sweep and return what each of its runs will take; see `resolve_sweep` for the arguments.

    With `measured`, a few steps of each distinct shape are trained first, so that seconds, kWh and dollars are known,
    and how many runs side by side make the best use of a device.
    With `elsewhere`, seconds, kWh and dollars follow from the MFU that is assumed for that hardware.
    Raises UserError for wrong input.
    """
    if measured and elsewhere is not None:
        raise UserError("--measure trains a few steps here, and --on is for hardware that is not here: choose one")
    ready = warm_up if measured else (lambda: None)
    resolved = resolve_sweep(
        name, list(overrides), output_dir, config_dir, say=say, when_valid=ready, elsewhere=elsewhere
    )
    if elsewhere is not None:
        return _plan_elsewhere(resolved, elsewhere)
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


def _plan_elsewhere(resolved: Sweep, elsewhere: HardwareElsewhere) -> SweepPlan:
    """Return what each run would take on hardware that is not here."""
    if any(is_auto(planned.config) for planned in resolved.examples):
        raise UserError(
            f"launcher.devices_per_run={AUTO} is measured on the device itself: with --on, give a number, such as 0.5"
        )
    runs = resolved.examples
    rows = plan(
        CostedRun(each.values, each.config, each.horizon, each.device, elsewhere.speed(each.config, each.horizon))
        for each in runs
    )
    # The runs of a search are not known yet.
    placed = [] if resolved.search else place_runs(runs, [row["train_seconds"] for row in rows], elsewhere.device)
    if placed and all(each.config.launcher.is_local for each in runs):  # else the scheduler chooses the devices
        rows = [row | {"gpus": list(at.devices), "starts_at": at.starts} for row, at in zip(rows, placed, strict=True)]
    return SweepPlan(resolved, tuple(rows), elsewhere=elsewhere, assumed=_assumed(resolved, elsewhere, placed))


def _assumed(resolved: Sweep, elsewhere: HardwareElsewhere, placed: Sequence[Placed]) -> Row:
    """Return what the hours and dollars of a plan for other hardware rest on."""
    configs = [planned.config for planned in resolved.examples]
    at_a_time, in_use = max_at_once(placed)
    return {
        "hardware": elsewhere.hardware.name,
        "devices": elsewhere.count,
        "mfu": elsewhere.mfu,
        "mfu_is_default": elsewhere.is_default_mfu,
        "peak_flops": {config.precision.name: elsewhere.peak(config)[0] for config in configs},
        "peak_source": elsewhere.peak(configs[0])[1],
        "dollars_per_hour": configs[0].hardware.dollars_per_hour,
        "price_source": configs[0].hardware.price_source,
        "clock_seconds": max(one.ends for one in placed) if placed else None,
        "runs_at_a_time": at_a_time or None,
        "devices_in_use": in_use or None,
    }


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
