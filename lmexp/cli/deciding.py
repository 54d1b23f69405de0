"""Verbs that lead to a decision: plan before, report after."""

from pathlib import Path
from typing import Annotated

import typer

from lmexp.cli.app import DECIDE, OUTPUTS, AsJson, Configs, Debug, Outputs, Words, app, out, print_json, say, say_all
from lmexp.cli.showing import Asked, export_report, serve_report, show_report
from lmexp.errors import UserError


@app.command(epilog="Example: `lmexp plan isoflop`, or `lmexp plan demo --measure`", rich_help_panel=DECIDE)
def plan(
    name: Annotated[str, typer.Argument(help="A sweep's name, or the path of its file.")],
    overrides: Words = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="First train a few steps of each distinct shape, to know its speed.")
    ] = False,
    max_dollars: Annotated[float | None, typer.Option(help="Propose what fits into so many dollars.")] = None,
    max_hours: Annotated[float | None, typer.Option(help="The same, in hours of all runs together.")] = None,
    max_flops: Annotated[float | None, typer.Option(help="The same, in training FLOPs.")] = None,
    law: Annotated[
        str | None,
        typer.Option(help="Simulate how well the runs would tell this law: hoffmann, epoch, kaplan, E=..,A=.., FILE."),
    ] = None,
    noise: Annotated[float, typer.Option(help="With --law: relative standard deviation of a run's loss.")] = 0.01,
    target_flops: Annotated[
        float | None, typer.Option(help="With --law: the budget to foretell; 10 times the largest run.")
    ] = None,
    output_dir: Outputs = OUTPUTS,
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what each cell of a sweep will take: parameters, FLOPs, memory; time and money once measured."""
    from lmexp.cli.proposals import Asked, affordable, simulated
    from lmexp.planning.cuts import caps_of
    from lmexp.report.terminal.plan import print_affordable, print_plan, print_search_plan, print_simulation
    from lmexp.study.plan import plan_sweep

    caps = caps_of(max_dollars, max_hours, max_flops)
    if target_flops is not None and law is None:
        raise UserError("--target-flops says what a law is to foretell: it needs --law")
    planned = plan_sweep(name, overrides or [], output_dir, config_dir, measure, say)
    resolved, rows = planned.sweep, list(planned.rows)
    asked = Asked(name, overrides or [], output_dir, config_dir)
    found = affordable(asked, resolved, rows, caps) if caps else None
    told = simulated(asked, resolved, rows, law, noise, target_flops) if law else None
    more = ({"affordable": found} if found else {}) | ({"simulation": told} if told else {})
    if resolved.search:
        search = resolved.search.spec
        if as_json:
            spec = search.model_dump(mode="json", by_alias=True, exclude_none=True)
            print_json({"sweep": resolved.name, "search": spec, "corners": rows, "at_most": planned.total} | more)
        else:
            say_all(planned.notices)
            print_search_plan(resolved.name, search, rows, out)
    elif as_json:
        skipped = [{"values": cell.values, "reason": cell.reason} for cell in resolved.skipped]
        print_json({"sweep": resolved.name, "runs": rows, "total": planned.total, "skipped": skipped} | more)
    else:
        say_all(planned.notices)
        print_plan(rows, out)
    if found and not as_json:
        print_affordable(found, len(rows), out)
    if told and not as_json:
        print_simulation(told, out)


@app.command(epilog="Example: `lmexp report demo --cost train_flops`", rich_help_panel=DECIDE)
def report(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Sweeps that have been started.")],
    quality: Annotated[
        str | None,
        typer.Option(
            help="One column or several: loss,score/tag/span_f1. Else bits_per_byte where tokenizers differ, or loss."
        ),
    ] = None,
    cost: Annotated[str, typer.Option(help="One column or several, as in dollars,peak_memory_gb.")] = "train_seconds",
    where: Annotated[
        str | None, typer.Option(metavar="EXPRESSION", help="Only such rows, as in \"n_layers >= 4 and model != 'a'\".")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(metavar="EXPRESSIONS", help="Means of such groups, as in model,precision; all axes but the seed."),
    ] = None,
    reach: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=X", help="Also name the cheapest run that reaches this.")
    ] = None,
    under: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=Y", help="Also name the best run within this.")
    ] = None,
    detect: Annotated[
        float | None, typer.Option(metavar="DIFFERENCE", help="Also say how many seeds show such a difference.")
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Columns to show, as in slug,loss,dollars.")] = None,
    sort: Annotated[str | None, typer.Option(help="Column to sort the table by; the quality.")] = None,
    top: Annotated[int, typer.Option(min=0, help="Rows to print at most, beside the frontier's; 0 is all.")] = 50,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="Write only the table, as md, csv, parquet, json, html or latex."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The file for --format; else standard output.")] = None,
    charts: Annotated[
        str | None, typer.Option(metavar="FORMATS", help="Also write the charts, into charts/: png, svg, pdf.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the page at an address of this machine; it follows the runs.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of --serve; 0 is any that is free.")] = 8765,
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare runs: the table and the frontier here; report.html, table.csv and table.parquet on disk."""
    folders = [output_dir / name for name in names]
    asked = Asked(quality, cost, sort, columns, where, group_by, reach or (), under or (), detect, top)
    exported = _format_of(format_, output)
    if serve:
        serve_report(folders, quality, cost, port, as_json)
    elif exported is None:
        show_report(folders, asked, as_json, charts)
    elif as_json or charts is not None:
        raise UserError("--format and --output write one table; --json and --charts go without them")
    else:
        export_report(folders, asked, exported, output)


def _format_of(name: str | None, output: Path | None) -> str | None:
    """Return the format that is asked for, if one is; asking for none imports nothing."""
    if name is None and output is None:
        return None
    from lmexp.report.export.formats import format_named

    return format_named(name, output)
