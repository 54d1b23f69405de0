"""Report on a study: read its folders, choose what is shown, and write the page and the tables beside the runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from lmexp.analysis.findings import Findings
from lmexp.analysis.table import Study
from lmexp.files import hash_text
from lmexp.report.forecasts import forecast_document
from lmexp.report.said import said_of
from lmexp.report.view import StudyView

if TYPE_CHECKING:
    from lmexp.study.publish import Publication


@dataclass(frozen=True)
class StudyReport:
    """A study, what its report shows, and the files that were written."""

    view: StudyView
    page: Path
    """report.html"""
    csv: Path
    parquet: Path
    charts: tuple[Path, ...]
    """Charts as files, if any were asked for."""
    published: "Publication | None" = None
    """The folder for a web server, if one was asked for."""

    @property
    def name(self) -> str:
        """The sweeps' names."""
        return self.view.study.name

    @property
    def question(self) -> str | None:
        """What the study asks."""
        return self.view.study.question

    @cached_property
    def _found(self) -> Findings:
        return said_of(self.view.study, self.view.options.quality[0], self.view.options.cost[0])

    @property
    def answer(self) -> list[str]:
        """The answer to the study's question, in at most five sentences; if rows do not all compare, of each part."""
        return list(self._found.answer)

    @property
    def findings(self) -> list[str]:
        """All that the study says, as sentences; the answer comes first."""
        return self._found.sentences

    @property
    def answers(self) -> list[str]:
        """The answers to `reach` and `under`, as sentences."""
        return self.view.answers

    @cached_property
    def table(self) -> pd.DataFrame:
        """All rows and columns, the best quality first within each task.

        `frontier` says which rows are on it. `tied_with` names the setting that costs no more and that the seeds do not
        tell from the row's own; it is null if there is none, or if no setting has two finished seeds.
        """
        marked = self.view.table.assign(frontier=self.view.marks, tied_with=self.view.tied_with)
        return marked.iloc[self.view.order].reset_index(drop=True)

    @property
    def frontier(self) -> pd.DataFrame:
        """The rows that no other beats on both quality and cost; of a tied one, `tied_with` is not null."""
        return self.table[self.table["frontier"]].reset_index(drop=True)

    @property
    def forecasts(self) -> pd.DataFrame:
        """The sealed forecasts of these sweeps, a row each, with the run that each is compared with; see Score."""
        return pd.DataFrame([forecast_document(score) for score in self.view.forecasts])

    @property
    def groups(self) -> pd.DataFrame | None:
        """The means over seeds, or over the groups that were asked for; None if there is nothing to group."""
        return self.view.groups


MAX_NAME = 200
"""Characters of the name of a folder that is made for several studies; file systems allow 255 bytes."""


def _joined(names: Sequence[str]) -> str:
    """Return a folder's name for several studies: all their names, or a part and a hash if they are too long."""
    name = "+".join(names)
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}-{hash_text(name, 8)}"


def write_report_files(
    study: Study, view: StudyView, folders: Sequence[Path], formats: Sequence[str] = (), width: str = "double"
) -> StudyReport:
    """Write report.html and the tables of a whole study, and its charts in these formats; return them with the view.

    They lie in the study's folder; of several, in a folder beside the first that has all their names. `width` is that
    of the charts, `single` or `double` (charts/export.py).
    """
    from lmexp.report.charts.export import write_charts
    from lmexp.report.export.files import write_csv, write_parquet
    from lmexp.report.page.html import write_report

    quality, cost = view.options.quality[0], view.options.cost[0]
    folder = folders[0] if len(folders) == 1 else folders[0].parent / _joined([each.name for each in folders])
    page = write_report(study, folder, quality, cost)
    csv, parquet = folder / "table.csv", folder / "table.parquet"
    write_csv(study.table, csv)
    write_parquet(study.table, parquet)
    charts = write_charts(study, folder / "charts", quality, cost, list(formats), width) if formats else []
    return StudyReport(view, page, csv, parquet, tuple(charts))
