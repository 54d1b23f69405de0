"""`lmexp report`: compare the runs of one study or several."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lmexp.cli.app import DECIDE, verb
from lmexp.cli.options import Common
from lmexp.cli.reporting import ViewChoices, export_report, serve_report, show_report
from lmexp.errors import UserError


@dataclass(frozen=True)
class OutputOptions:
    """Where a report goes."""

    format: Annotated[
        str | None,
        typer.Option("--format", help="Write only the table, in this format: md, csv, parquet, json, html or latex."),
    ] = None
    output: Annotated[Path | None, typer.Option(help="File for --format [default: standard output].")] = None
    charts: Annotated[
        str | None, typer.Option(metavar="FORMATS", help="Also write the charts to charts/, as png, svg or pdf.")
    ] = None
    width: Annotated[
        str, typer.Option(help="Width of the charts of --charts: single (3.25 inches, a column) or double (6.75).")
    ] = "double"
    publish: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Also write a folder for any web server: page, tables, records, figures and README."
        ),
    ] = None
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page on this machine; it follows the runs while they train.")
    ] = False
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of --serve; 0 takes any free port.")] = 8765

    def parse_format(self) -> str | None:
        """Return the format of the table, None without one. Raises UserError for a format that is not known."""
        if self.format is None and self.output is None:
            return None
        from lmexp.report.export.formats import format_named

        return format_named(self.format, self.output)


@verb(DECIDE, "lmexp report demo --cost train_flops", "lmexp report demo --publish site", only_shows=True)
def report(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Sweeps that have been started.")],
    choices: ViewChoices,
    target: OutputOptions,
    common: Common,
) -> None:
    """Compare runs: print the table and the frontier; write report.html, table.csv and table.parquet."""
    from lmexp.runs.find import sweep_folder

    folders = [sweep_folder(name, common.output_dir) for name in names]
    table_format = target.parse_format()
    if target.publish and (target.serve or table_format is not None):
        raise UserError("--publish writes a folder; it cannot be combined with --serve, --format or --output")
    if target.serve:
        serve_report(folders, choices, target.port, common.as_json)
    elif table_format is None:
        show_report(folders, choices, common.as_json, target.charts, target.publish, target.width)
    elif common.as_json or target.charts is not None:
        raise UserError("--format and --output write one table; they cannot be combined with --json or --charts")
    else:
        export_report(folders, choices, table_format, target.output)
