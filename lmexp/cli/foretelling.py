"""Verbs that foretell: what a run that nobody has paid for yet would give."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmexp.cli.app import DECIDE, OUTPUTS, AsJson, Configs, Debug, Outputs, app, out, print_json
from lmexp.errors import UserError, nearest

if TYPE_CHECKING:
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
    from lmexp.analysis.advice.advise import UNITS, Ask, advise, learn
    from lmexp.analysis.advice.families import guide, purpose_of
    from lmexp.analysis.table import load_study
    from lmexp.config import paths
    from lmexp.report.terminal.advise import print_advice, print_guide

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
    found = advise(learn(load_study(folders), task), ask, roots)
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


@app.command(epilog="Example: `lmexp fit isoflop`, or `lmexp fit points.csv --flops 1e21,1e23`", rich_help_panel=DECIDE)
def fit(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME... | FILE", help="Sweeps with finished runs; or one .csv, .tsv or .parquet."),
    ],
    flops: Annotated[
        list[str] | None,
        typer.Option(help="Budgets to say the best size for, as in 1e18,1e20; 1 and 10 x the largest run."),
    ] = None,
    serve: Annotated[
        float | None, typer.Option(metavar="TOKENS", help="Also the cheapest model when so many tokens are served.")
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(help="Instead, the loss that a cost buys: train_flops, train_seconds, dollars, energy_kwh."),
    ] = None,
    at: Annotated[list[str] | None, typer.Option(help="With --cost: the amounts to tell of, as in 3600,36000.")] = None,
    params: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of parameters.")] = None,
    tokens: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of training tokens.")] = None,
    compute: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of training FLOPs; 6ND computes them.")
    ] = None,
    loss: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of the loss.")] = None,
    delta: Annotated[
        float | None, typer.Option(help="Where Huber's loss turns linear; from the residuals. 1e-3 is Chinchilla's.")
    ] = None,
    bootstraps: Annotated[int, typer.Option(min=100, max=10_000, help="Refits that make the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    charts: Annotated[str | None, typer.Option(help="Also write charts as files: png,svg,pdf.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of fit.html and fit.json; the sweep's, or for a file the current one.")
    ] = None,
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Fit scaling laws: best sizes, tokens and losses of budgets, with intervals, hold-out errors and warnings."""
    from lmexp.analysis.scaling.answers import answer, answer_in_cost
    from lmexp.analysis.scaling.readers import points_of_csv, points_of_study
    from lmexp.analysis.table import load_study
    from lmexp.report.charts.export import check_formats
    from lmexp.report.export.fit_document import fit_document
    from lmexp.report.page.fit import write_fit, write_fit_charts
    from lmexp.report.terminal.fit import print_fit

    if cost is None and at:
        raise UserError("--at tells amounts of a --cost; budgets in FLOPs are --flops")
    if cost is not None and (flops or serve is not None):
        raise UserError("--cost fits the loss against one cost: --flops and --serve belong to a fit without it")
    if serve is not None and not 0 < serve < 1e30:
        raise UserError(f"--serve {serve:g}: a number of tokens above 0")
    if delta is not None and not 0 < delta < 1e3:
        raise UserError(f"--delta {delta:g}: a number above 0, as 1e-3")
    budgets, amounts = amounts_in("--flops", flops), amounts_in("--at", at)
    formats = check_formats(charts) if charts is not None else []
    named = {"params": params, "tokens": tokens, "flops": compute, "loss": loss}
    columns = {key: name for key, name in named.items() if name}

    file = Path(names[0])
    if len(names) == 1 and file.suffix.lower() in TABLES and not (output_dir / names[0]).is_dir():
        points, name, folder = points_of_csv(file, columns), file.name, Path()
    else:
        study = load_study([output_dir / name for name in names])
        points, name = points_of_study(study, columns), study.name
        folder = output_dir / "+".join(names)
    if cost is None:
        found = answer(points, budgets, serve, delta, bootstraps, seed)
    else:
        found = answer_in_cost(points, cost, amounts, delta, bootstraps, seed)
    page = write_fit(found, name, output or folder)
    drawn = write_fit_charts(found, output or folder, formats)
    if as_json:
        print_json(fit_document(found) | {"page": str(page), "charts": [str(chart) for chart in drawn]})
    else:
        print_fit(found, out)
        out.print(f"\nfit: {page}", soft_wrap=True, markup=False)
        for chart in drawn:
            out.print(str(chart), soft_wrap=True, markup=False)


TABLES = {".csv", ".tsv", ".parquet", ".txt"}
"""What a file of points may end in."""


def amounts_in(option: str, words: list[str] | None) -> list[float]:
    """Return the numbers of an option that may be given several times, or as a list with commas."""
    found = []
    for word in ",".join(words or []).split(","):
        if not word.strip():
            continue
        try:
            value = float(word)
        except ValueError:
            value = 0.0
        if not 0 < value < 1e40:
            raise UserError(f"{option} {word.strip()}: a number above 0, as 1e21")
        found.append(value)
    return found
