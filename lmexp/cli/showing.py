"""What several verbs show: the report of a study, the rows of a plan."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lmexp.cli.app import out, print_json, say
from lmexp.errors import UserError

if TYPE_CHECKING:
    from lmexp.analysis.table import Study
    from lmexp.report.view import StudyView
    from lmexp.resolve.sweep import Sweep
    from lmexp.runs.record import Row


@dataclass(frozen=True)
class Asked:
    """What the command line asks of a study, as it was written."""

    quality: str | None = None
    cost: str = "train_seconds"
    sort: str | None = None
    columns: str | None = None
    where: str | None = None
    group_by: str | None = None
    reach: Sequence[str] = ()
    under: Sequence[str] = ()
    detect: float | None = None
    top: int = 50

    def of(self, study: "Study") -> "StudyView":
        """Return the study as it is asked for. Raises UserError for what is no column, limit or expression."""
        from lmexp.analysis.select import parse_limits
        from lmexp.report.view import StudyView, ViewOptions, quality_names, split_names

        part = study.where(self.where) if self.where is not None else study
        if self.where is not None and part.table.empty:
            raise UserError(f"no row of {study.name} is such that {self.where}")
        view = ViewOptions(
            quality=quality_names(part, self.quality),
            cost=split_names(self.cost) or ("train_seconds",),
            sort=self.sort,
            columns=split_names(self.columns),
            group_by=self.group_by,
            top=self.top,
            reach=parse_limits(self.reach, "--reach"),
            under=parse_limits(self.under, "--under"),
            detect=self.detect,
        )
        return StudyView(part, view)


def show_report(
    folders: list[Path], asked: Asked | None = None, as_json: bool = False, charts: str | None = None
) -> None:
    """Write the files of a whole study, and print what is asked of it; `charts` names formats, as in `png,pdf`."""
    from lmexp.analysis.table import load_study
    from lmexp.report.charts.export import check_formats, write_charts
    from lmexp.report.export.document import study_document
    from lmexp.report.export.files import write_csv, write_parquet
    from lmexp.report.page.html import write_report
    from lmexp.report.terminal.study import print_study

    formats = check_formats(charts) if charts is not None else []
    study = load_study(folders)
    shown = (asked or Asked()).of(study)
    shown.check()
    quality, cost = shown.view.quality[0], shown.view.cost[0]
    folder = folders[0] if len(folders) == 1 else folders[0].parent / "+".join(f.name for f in folders)
    page = write_report(study, folder, quality, cost)
    write_csv(study.table, folder / "table.csv")
    write_parquet(study.table, folder / "table.parquet")
    drawn = write_charts(study, folder, quality, cost, formats) if formats else []
    if as_json:
        print_json(study_document(shown) | {"report": str(page), "charts": [str(file) for file in drawn]})
    else:
        print_study(shown, out)
        out.print(f"\nreport: {page}", soft_wrap=True)
        if drawn:
            out.print(f"charts: {len(drawn)} files in {folder / 'charts'}", soft_wrap=True)


def export_report(folders: list[Path], asked: Asked, name: str, output: Path | None) -> None:
    """Write what is asked of a study in one format, to standard output or to a file; nothing else is written."""
    from lmexp.analysis.table import load_study
    from lmexp.files import write_atomically
    from lmexp.report.export.formats import rendered

    shown = asked.of(load_study(folders))
    shown.check()
    content = rendered(shown, name)
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, content)
        say(f"written: {output}")


def serve_report(folders: list[Path], quality: str | None, cost: str, port: int, as_json: bool) -> None:
    """Serve a study's page until Ctrl-C."""
    from lmexp.report.page.serve import serve

    if as_json:
        raise UserError("--serve shows a page until Ctrl-C; --json prints one document and ends")
    serve(folders, quality, cost, port, lambda address: print(f"report: {address} (Ctrl-C ends it)", flush=True))


def plan_rows(resolved: "Sweep", outputs: Path) -> "list[Row]":
    """Return what each run of a sweep will take, as far as it is known."""
    from lmexp.launch.probe import known_probes
    from lmexp.planning.plan import Cell, plan

    probes = known_probes(resolved.examples, outputs)
    return plan(
        Cell(planned.values, planned.config, planned.horizon, planned.device, probe)
        for planned, probe in zip(resolved.examples, probes, strict=True)
    )
