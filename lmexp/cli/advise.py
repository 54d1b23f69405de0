"""`lmexp advise`: what to train for a budget or a target loss, or which model family suits a task."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmexp.cli.app import DECIDE, out, print_json, verb
from lmexp.cli.options import AllRuns, CommonWithConfigs, Where
from lmexp.errors import UserError

if TYPE_CHECKING:
    from lmexp.analysis.advice.advise import Ask


@dataclass(frozen=True)
class BudgetOptions:
    """What may be spent, or which loss must be reached."""

    flops: Annotated[float | None, typer.Option(help="Budget in training FLOPs.")] = None
    dollars: Annotated[float | None, typer.Option(help="Budget in dollars.")] = None
    hours: Annotated[float | None, typer.Option(help="Budget in hours of training.")] = None
    loss: Annotated[float | None, typer.Option(help="Instead of a budget: the loss to reach, at the least cost.")] = (
        None
    )
    by: Annotated[str | None, typer.Option(help="With --loss: the cost to minimise: flops, hours or dollars.")] = None
    device: Annotated[
        str | None, typer.Option(help="Device to train on (`lmexp list hardware`) [default: the study's].")
    ] = None
    dollars_per_hour: Annotated[float | None, typer.Option(help="Price of one hour of all devices together.")] = None
    serve: Annotated[
        float, typer.Option(metavar="TOKENS", help="Tokens that will be served later, whose cost counts too.")
    ] = 0.0

    @property
    def is_set(self) -> bool:
        """Whether there is a budget or a target loss."""
        return any(value is not None for value in (self.flops, self.dollars, self.hours, self.loss))

    def parse(self, roots: list[Path]) -> "Ask":
        """Return what is asked. Raises UserError for a cost or a device that is not known."""
        from lmexp.analysis.advice.advise import UNITS, Ask
        from lmexp.cost.hardware import hardware_named

        if self.by not in (None, *UNITS):
            raise UserError(f"--by {self.by}: choose among {', '.join(UNITS)}")
        device = None if self.device is None else hardware_named(self.device, roots)
        return Ask(self.flops, self.hours, self.dollars, self.loss, self.by, device, self.dollars_per_hour, self.serve)


@verb(DECIDE, "lmexp advise demo --hours 10", "lmexp advise --for labelling")
def advise(
    budget: BudgetOptions,
    common: CommonWithConfigs,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Sweeps with finished runs. Not needed with --for."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Task to advise on, if the study has several.")] = None,
    purpose: Annotated[
        str | None,
        typer.Option(
            "--for",
            help="Instead: recommend a model family for a purpose: generating, judging, labelling, translating or "
            "filling.",
        ),
    ] = None,
    where: Where = None,
    all_runs: AllRuns = False,
) -> None:
    """Advise what to train for a budget or a target loss, from a study's fits and speeds; or which family to use."""
    from lmexp.analysis.advice.advise import advise, learn
    from lmexp.analysis.advice.families import guide, purpose_of
    from lmexp.analysis.table import load_study
    from lmexp.config import paths
    from lmexp.report.terminal.advise import print_advice, print_guide
    from lmexp.runs.find import sweep_folder

    folders = [sweep_folder(name, common.output_dir) for name in names or []]
    study = load_study(folders, all_runs) if folders else None
    if study is not None and where is not None:
        study = study.kept(where)
    if purpose is not None:
        if budget.is_set:
            raise UserError("--for compares model families; it cannot be combined with a budget or a loss")
        families = guide(purpose_of(purpose), study)
        print_json(families) if common.as_json else print_guide(families, out)
        return
    if study is None:
        raise UserError("advice comes from a study: name one, or ask for a family with --for")
    roots = paths.search_roots(common.config_dir)
    ask = budget.parse(roots)
    advice = advise(learn(study, task), ask, roots)
    print_json(advice) if common.as_json else print_advice(advice, out)
