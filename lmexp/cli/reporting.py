"""The report of a study, as the verbs show it: in the terminal and on disk, as one table, or served."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmexp.cli.app import message_of, out, print_json, print_line, say
from lmexp.cli.options import AllRuns, Where
from lmexp.errors import UserError
from lmexp.units import counted

if TYPE_CHECKING:
    from lmexp.analysis.table import Study
    from lmexp.report.view import StudyView


@dataclass(frozen=True)
class ViewChoices:
    """What a report shows of a study, as written on the command line."""

    quality: Annotated[
        str | None,
        typer.Option(
            help="Quality to compare by: one column or several, such as loss,score/tag/span_f1 "
            "[default: bits_per_byte if tokenizers differ, otherwise loss]."
        ),
    ] = None
    cost: Annotated[
        str | None,
        typer.Option(
            help="Cost to compare by: one column or several, such as dollars,peak_memory_gb "
            "[default: what the design varies: FLOPs, dollars or train_seconds]."
        ),
    ] = None
    where: Where = None
    all_runs: AllRuns = False
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="EXPRESSIONS",
            help="Groups to take means of: model,precision [default: all axes but the seed].",
        ),
    ] = None
    reach: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=X", help="Also name the cheapest run that reaches this value, as in loss=3.0."),
    ] = None
    under: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=Y", help="Also name the best run within this limit, as in dollars=2."),
    ] = None
    detect: Annotated[
        float | None,
        typer.Option(metavar="DIFFERENCE", help="Also say how many seeds it takes to detect a difference this large."),
    ] = None
    columns: Annotated[str | None, typer.Option(help="Columns to show, such as slug,loss,dollars.")] = None
    sort: Annotated[str | None, typer.Option(help="Sort by this column [default: the quality column].")] = None
    top: Annotated[
        int, typer.Option(min=0, help="Rows to print at most, besides those of the frontier; 0 prints all.")
    ] = 50

    def of(self, study: "Study") -> "StudyView":
        """Return this view of a study. Raises UserError for a column, a limit or an expression that is wrong."""
        from lmexp.analysis.select import parse_limits
        from lmexp.report.options import ViewOptions, split_names
        from lmexp.report.view import StudyView

        options = ViewOptions(
            quality=split_names(self.quality),
            cost=split_names(self.cost),
            where=self.where,
            group_by=self.group_by,
            reach=parse_limits(self.reach or (), "--reach"),
            under=parse_limits(self.under or (), "--under"),
            detect=self.detect,
            columns=split_names(self.columns),
            sort=self.sort,
            top=self.top,
        )
        return StudyView.of(study, options)


def show_report(
    folders: Sequence[Path],
    choices: ViewChoices | None = None,
    as_json: bool = False,
    charts: str | None = None,
    publish: Path | None = None,
    width: str = "double",
) -> None:
    """Write the files of a whole study, and print the chosen view of it.

    Args:
        charts: formats of charts to write as well, such as `png,pdf`.
        publish: folder for a publication of the study.
        width: how wide the charts are, `single` or `double`.
    """
    from lmexp.analysis.table import load_study
    from lmexp.report.charts.export import check_formats, check_width
    from lmexp.report.export.document import study_document
    from lmexp.report.terminal.study import print_study
    from lmexp.study.report import write_report_files

    formats = check_formats(charts) if charts is not None else []
    check_width(width)
    choices = choices or ViewChoices()
    study = load_study(list(folders), choices.all_runs)
    view = choices.of(study)
    try:
        report = write_report_files(study, view, folders, formats, width)
    except OSError as problem:  # the outputs are somebody else's, or the disk is full: what is known is still printed
        report = None
        say(f"warning: the report's files could not be written: {message_of(problem)}")
    published = None
    if publish is not None:
        from lmexp.study.publish import publish_study

        quality, cost = view.options.quality[0], view.options.cost[0]
        published = publish_study(folders, publish, quality, cost, choices.all_runs)
    if as_json:
        files = {
            "report": str(report.page) if report else None,
            "published": str(published.folder) if published else None,
        }
        print_json(study_document(view) | files | {"charts": [str(file) for file in report.charts] if report else []})
        return
    print_study(view, out)
    if report:
        print_line(f"\nreport: {report.page}")
    if report and report.charts:
        print_line(f"charts: {counted(len(report.charts), 'file')} in {report.charts[0].parent}")
    if published:
        from lmexp.units import bytes_in_words

        size = bytes_in_words(published.n_bytes)
        print_line(f"published: {published.files} files, {size}, in {published.folder}")


def export_report(folders: Sequence[Path], choices: ViewChoices, name: str, output: Path | None) -> None:
    """Write the chosen view of a study in one format, to standard output or to a file; write nothing else."""
    from lmexp.analysis.table import load_study
    from lmexp.files import write_output
    from lmexp.report.export.formats import rendered

    content = rendered(choices.of(load_study(list(folders), choices.all_runs)), name)
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    else:
        write_output(output, content)
        say(f"written: {output}")


def serve_report(folders: Sequence[Path], choices: ViewChoices, port: int, as_json: bool) -> None:
    """Serve a study's page until Ctrl-C."""
    from lmexp.report.page.serve import serve

    if as_json:
        raise UserError("--serve shows a page until Ctrl-C, and --json prints one document and ends: use one of them")
    serve(
        list(folders),
        choices.quality,
        choices.cost,
        choices.all_runs,
        port,
        lambda address: print_line(f"report: {address} (Ctrl-C ends it)"),
    )
