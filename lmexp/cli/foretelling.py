"""Verbs that foretell: what a run that nobody has paid for yet would give."""

from typing import TYPE_CHECKING, Annotated

import typer

from lmexp.cli.app import DECIDE, OUTPUTS, AsJson, Configs, Debug, Outputs, app, out, print_json
from lmexp.errors import UserError, nearest

if TYPE_CHECKING:
    from pathlib import Path

    from lmexp.config.schema import HardwareConfig


@app.command(
    epilog="Example: `lmexp advise demo --hours 10`, or `lmexp advise --for labelling`", rich_help_panel=DECIDE
)
def advise(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Sweeps that have finished runs; --for needs none.")
    ] = None,
    flops: Annotated[float | None, typer.Option(help="What may be spent: training FLOPs.")] = None,
    dollars: Annotated[float | None, typer.Option(help="The same, in dollars.")] = None,
    hours: Annotated[float | None, typer.Option(help="The same, in hours of training.")] = None,
    loss: Annotated[float | None, typer.Option(help="Instead: the loss to reach, as cheaply as possible.")] = None,
    by: Annotated[str | None, typer.Option(help="With --loss, what is to be least: flops, hours, dollars.")] = None,
    device: Annotated[str | None, typer.Option(help="Another device than the study's (`lmexp list hardware`).")] = None,
    dollars_per_hour: Annotated[float | None, typer.Option(help="Price of an hour of all devices.")] = None,
    serve: Annotated[float, typer.Option(metavar="TOKENS", help="Tokens served later, which are paid for too.")] = 0.0,
    task: Annotated[str | None, typer.Option(help="Of a study with several: which.")] = None,
    purpose: Annotated[
        str | None,
        typer.Option("--for", help="Which family: generating, judging, labelling, translating, filling."),
    ] = None,
    output_dir: Outputs = OUTPUTS,
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what to train for a budget, or for a loss, from a study's own fits and speeds; or which family for a task."""
    from lmexp.analysis.advise import UNITS, Ask, advise
    from lmexp.analysis.guide import guide, purpose_of
    from lmexp.analysis.table import load_study
    from lmexp.config import paths
    from lmexp.report.advise import print_advice, print_guide

    folders = [output_dir / name for name in names or []]
    if purpose is not None:
        if any(given is not None for given in (flops, dollars, hours, loss)):
            raise UserError("--for says which family; ask for a budget or a loss without it")
        found = guide(purpose_of(purpose), load_study(folders) if folders else None)
        print_json(found) if as_json else print_guide(found, out)
        return
    if not folders:
        raise UserError("advice comes from a study: name one, or ask for a family with --for")
    if by not in (None, *UNITS):
        raise UserError(f"--by {by}: {', '.join(UNITS)}")
    roots = paths.search_roots(config_dir)
    ask = Ask(flops, hours, dollars, loss, by, _device(device, roots), dollars_per_hour, serve)
    found = advise(load_study(folders), ask, roots, task)
    print_json(found) if as_json else print_advice(found, out)


def _device(name: str | None, roots: "list[Path]") -> "HardwareConfig | None":
    """Return the hardware file of a name. Raises UserError, with the nearest, where there is none."""
    from lmexp.cost.hardware import AUTO, MEASURED, known_hardware

    if name is None:
        return None
    known = {key: value for key, value in known_hardware(roots).items() if key not in (AUTO, MEASURED)}
    if name not in known:
        raise UserError(f"there is no hardware '{name}'.{nearest(name, known)} `lmexp list hardware` shows them")
    return known[name]
