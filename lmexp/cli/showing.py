"""What several verbs show: the report of a study, the rows of a plan."""

from pathlib import Path
from typing import TYPE_CHECKING

from lmexp.cli.app import out, print_json
from lmexp.errors import UserError

if TYPE_CHECKING:
    from lmexp.launch.resolve import Sweep
    from lmexp.runs.record import Row


def show_report(
    folders: list[Path], quality: str | None, cost: str, sort: str | None, as_json: bool, charts: str | None = None
) -> None:
    """Write a study's files, and print it; `charts` names formats, as in `png,pdf`."""
    from lmexp.analysis.table import load_study
    from lmexp.report.charts.export import check_formats, write_charts
    from lmexp.report.document import study_document
    from lmexp.report.files import write_csv, write_parquet
    from lmexp.report.html import write_report
    from lmexp.report.terminal import print_study

    formats = check_formats(charts) if charts is not None else []
    study = load_study(folders)
    quality = quality or study.default_quality
    folder = folders[0] if len(folders) == 1 else folders[0].parent / "+".join(f.name for f in folders)
    page = write_report(study, folder, quality, cost)
    write_csv(study.table, folder / "table.csv")
    write_parquet(study.table, folder / "table.parquet")
    drawn = write_charts(study, folder, quality, cost, formats) if formats else []
    if as_json:
        print_json(
            study_document(study, quality, cost) | {"report": str(page), "charts": [str(file) for file in drawn]}
        )
    else:
        print_study(study, out, quality, cost, sort)
        out.print(f"\nreport: {page}", soft_wrap=True)
        if drawn:
            out.print(f"charts: {len(drawn)} files in {folder / 'charts'}", soft_wrap=True)


def serve_report(folders: list[Path], quality: str | None, cost: str, port: int, as_json: bool) -> None:
    """Serve a study's page until Ctrl-C."""
    from lmexp.report.serve import serve

    if as_json:
        raise UserError("--serve shows a page until Ctrl-C; --json prints one document and ends")
    serve(folders, quality, cost, port, lambda address: print(f"report: {address} (Ctrl-C ends it)", flush=True))


def plan_rows(resolved: "Sweep", outputs: Path) -> "list[Row]":
    """Return what each run of a sweep will take, as far as it is known."""
    from lmexp.analysis.planner import Cell, plan
    from lmexp.launch.trials import known_trials

    trials = known_trials(resolved.examples, outputs)
    return plan(
        Cell(planned.values, planned.config, planned.horizon, planned.device, trial)
        for planned, trial in zip(resolved.examples, trials, strict=True)
    )
