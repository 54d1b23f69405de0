"""`lmexp plan`: what a sweep will take, what of it fits under a cap, and how well it would identify a scaling law."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmexp.cli.app import DECIDE, out, print_json, say, say_all, verb
from lmexp.cli.options import OUTPUTS, CommonWithConfigs, Overrides, SweepName
from lmexp.errors import UserError

if TYPE_CHECKING:
    from lmexp.cost.elsewhere import HardwareElsewhere
    from lmexp.planning.cuts import Caps
    from lmexp.study.plan import SweepPlan


@dataclass(frozen=True)
class CapOptions:
    """What all runs together may take."""

    max_dollars: Annotated[
        float | None, typer.Option(help="Propose a part of the sweep that costs at most this many dollars.")
    ] = None
    max_hours: Annotated[
        float | None, typer.Option(help="Propose a part that takes at most this many hours, all runs together.")
    ] = None
    max_flops: Annotated[
        float | None, typer.Option(help="Propose a part that takes at most this many training FLOPs.")
    ] = None

    def parse(self) -> "Caps":
        """Return the caps that are set. Raises UserError for one that is not a number above 0."""
        from lmexp.planning.cuts import caps_of

        return caps_of(self.max_dollars, self.max_hours, self.max_flops)


@dataclass(frozen=True)
class LawOptions:
    """A scaling law to assume, to see how well the sweep would identify it."""

    law: Annotated[
        str | None,
        typer.Option(
            help="Simulate how well the runs would identify this scaling law: hoffmann, epoch, kaplan, constants such "
            "as E=1.7,A=406,..., or the fit.json of a fit."
        ),
    ] = None
    noise: Annotated[float, typer.Option(help="With --law: relative standard deviation of a run's loss.")] = 0.01
    target_flops: Annotated[
        float | None,
        typer.Option(help="With --law: budget to predict, in FLOPs [default: 10 times the largest run]."),
    ] = None

    def check(self) -> None:
        """Raise UserError for a target without a law."""
        if self.target_flops is not None and self.law is None:
            raise UserError("--target-flops is the budget that a law should predict: it needs --law")


@dataclass(frozen=True)
class HardwareOptions:
    """Hardware that is not here."""

    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="HARDWARE",
            help="Plan for hardware that is not here (`lmexp list hardware`): whether each run fits, and its time and "
            "dollars, from an assumed MFU.",
        ),
    ] = None
    devices: Annotated[int | None, typer.Option(help="With --on: devices for all runs together [default: 1].")] = None
    mfu: Annotated[
        float | None, typer.Option(help="With --on: the share of the peak that training reaches [default: 0.4].")
    ] = None

    def parse(self, common: CommonWithConfigs) -> "HardwareElsewhere | None":
        """Return the hardware, or None. Raises UserError for options that are wrong or do not go together."""
        from lmexp.config.paths import search_roots
        from lmexp.cost.elsewhere import hardware_elsewhere

        return hardware_elsewhere(self.on, self.devices, self.mfu, search_roots(common.config_dir))


@verb(DECIDE, "lmexp plan isoflop", "lmexp plan demo --measure", "lmexp plan demo --on h100_sxm --devices 4")
def plan(
    name: SweepName,
    common: CommonWithConfigs,
    caps: CapOptions,
    law: LawOptions,
    hardware: HardwareOptions,
    overrides: Overrides = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="First train a few steps of each distinct shape, to measure its speed.")
    ] = False,
    scale: Annotated[
        str | None, typer.Option(help="For a paper: cpu, gpu or paper, as in `lmexp reproduce`. [default: cpu]")
    ] = None,
) -> None:
    """Estimate what each run of a sweep takes: parameters, FLOPs and memory; --measure or --on adds time and money."""
    from lmexp.report.terminal.plan import (
        print_affordable,
        print_assumptions,
        print_plan,
        print_search_plan,
        print_simulation,
    )
    from lmexp.study.plan import plan_sweep

    limits = caps.parse()
    law.check()
    elsewhere = hardware.parse(common)
    wanted = [*_overrides_of_scale(name, scale, common), *(overrides or [])]
    planned = plan_sweep(name, wanted, common.output_dir, common.config_dir, measure, say, elsewhere)
    proposals = _proposals(name, wanted, common, planned, limits, law)
    if common.as_json:
        print_json(_document(planned) | proposals)
        return
    say_all(planned.notices)
    rows, search = list(planned.rows), planned.sweep.search
    if search:
        print_search_plan(planned.name, search.spec, rows, out)
    else:
        print_plan(rows, out)
    if planned.assumed:
        print_assumptions(planned.assumed, rows, out)
    if planned.advice:
        out.print(planned.advice, soft_wrap=True)
    if "affordable" in proposals:
        print_affordable(proposals["affordable"], len(rows), out)
    if "simulation" in proposals:
        print_simulation(proposals["simulation"], out)


def _overrides_of_scale(name: str, scale: str | None, common: CommonWithConfigs) -> list[str]:
    if scale is None:
        return []
    from lmexp.config.paths import find_sweep, search_roots
    from lmexp.papers.paper import read_paper, scale_named

    _, file = find_sweep(name, search_roots(common.config_dir))
    return read_paper(file).overrides(scale_named(scale))


def _proposals(
    name: str, overrides: list[str], common: CommonWithConfigs, plan: "SweepPlan", caps: "Caps", law: LawOptions
) -> dict[str, Any]:
    """Return what fits under the caps (`affordable`) and how well a law is identified (`simulation`), if wanted."""
    if not (caps or law.law):
        return {}
    from lmexp.planning.proposals import affordable, simulated  # slow to import, because they fit laws
    from lmexp.study.proposals import PlannedCommand

    options = [] if common.output_dir == OUTPUTS else ["--output-dir", str(common.output_dir)]
    options += [] if common.config_dir is None else ["--config-dir", str(common.config_dir)]
    command = PlannedCommand(name, overrides, common.output_dir, common.config_dir, options, say, plan.elsewhere)
    parts: dict[str, Any] = {}
    if caps:
        parts["affordable"] = affordable(command, command.view(plan), caps)
    if law.law:
        parts["simulation"] = simulated(command, command.view(plan), law.law, law.noise, law.target_flops)
    return parts


def _document(plan: "SweepPlan") -> dict[str, Any]:
    sharing = {"side_by_side": asdict(plan.sharing)} if plan.sharing else {}
    assumed = {} if plan.assumed is None else {"assumed": plan.assumed}
    return _runs_document(plan) | sharing | assumed


def _runs_document(plan: "SweepPlan") -> dict[str, Any]:
    rows = list(plan.rows)
    if plan.sweep.search:
        spec = plan.sweep.search.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {"sweep": plan.name, "search": spec, "corners": rows, "at_most": plan.total}
    skipped = [{"values": cell.values, "reason": cell.reason} for cell in plan.skipped]
    return {"sweep": plan.name, "runs": rows, "total": plan.total, "skipped": skipped}
