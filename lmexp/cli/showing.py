"""What several verbs show: the report of a study."""

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
        from lmexp.report.view import ViewOptions, split_names
        from lmexp.study.report import view_study

        options = ViewOptions(
            quality=split_names(self.quality),
            cost=split_names(self.cost) or ("train_seconds",),
            sort=self.sort,
            columns=split_names(self.columns),
            group_by=self.group_by,
            top=self.top,
            reach=parse_limits(self.reach, "--reach"),
            under=parse_limits(self.under, "--under"),
            detect=self.detect,
        )
        return view_study(study, options, self.where)


def show_report(
    folders: list[Path], asked: Asked | None = None, as_json: bool = False, charts: str | None = None
) -> None:
    """Write the files of a whole study, and print what is asked of it; `charts` names formats, as in `png,pdf`."""
    from lmexp.analysis.table import load_study
    from lmexp.report.charts.export import check_formats
    from lmexp.report.export.document import study_document
    from lmexp.report.terminal.study import print_study
    from lmexp.study.report import write_report_files

    formats = check_formats(charts) if charts is not None else []
    study = load_study(folders)
    shown = (asked or Asked()).of(study)
    report = write_report_files(study, shown, folders, formats)
    if as_json:
        print_json(
            study_document(shown) | {"report": str(report.page), "charts": [str(file) for file in report.charts]}
        )
    else:
        print_study(shown, out)
        out.print(f"\nreport: {report.page}", soft_wrap=True)
        if report.charts:
            out.print(f"charts: {len(report.charts)} files in {report.charts[0].parent}", soft_wrap=True)


def export_report(folders: list[Path], asked: Asked, name: str, output: Path | None) -> None:
    """Write what is asked of a study in one format, to standard output or to a file; nothing else is written."""
    from lmexp.analysis.table import load_study
    from lmexp.files import write_atomically
    from lmexp.report.export.formats import rendered

    shown = asked.of(load_study(folders))
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
