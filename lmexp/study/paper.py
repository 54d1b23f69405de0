"""Report on a paper: the verdicts on its claims, and the page, the figures and the numbers beside the runs."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from lmexp.errors import UserError
from lmexp.papers.reproduction import Reproduction
from lmexp.study.evaluations import FailedEvaluation


@dataclass(frozen=True)
class PaperReport:
    """The verdicts on a paper's claims, what they rest on, and the files that were written."""

    reproduction: Reproduction
    page: Path
    """paper.html"""
    markdown: Path
    """The same page as Markdown: paper.md or, in a folder of pages, NAME.md."""
    failed_evaluations: tuple[FailedEvaluation, ...] = ()
    """The evaluations of this call that gave no scores, with the reason of each."""

    @cached_property
    def claims(self) -> pd.DataFrame:
        """Each claim by name, with `verdict`, `value`, `low`, `high`, `band_low`, `band_high` and what the paper says.

        An end of the 95 % interval or of the band that is open is null, as is a value that the runs do not give.
        """
        rows = [
            {key: value for key, value in claim.items() if key != "band"}
            | {"band_low": claim["band"][0], "band_high": claim["band"][1]}
            for claim in self.reproduction.document()["claims"]
        ]
        numbers = ["value", "low", "high", "band_low", "band_high"]
        return pd.DataFrame(rows).set_index("name").astype(dict.fromkeys(numbers, "Float64"))

    @property
    def verdicts(self) -> dict[str, int]:
        """How many claims have each verdict."""
        return self.reproduction.verdicts

    @property
    def table(self) -> pd.DataFrame:
        """The rows that the verdicts rest on: finished runs and milestones."""
        return self.reproduction.evidence.table

    def check_judged(self) -> None:
        """Raise UserError if no claim at all has a verdict: the page says what is there and what is missing."""
        if why := self.reproduction.why_nothing_is_judged:
            raise UserError(f"{why}; {self.page} says what is there and what is missing")

    @property
    def folder(self) -> Path:
        """The folder of the runs, for `lmexp.load` and `lmexp.report`."""
        return self.reproduction.folder


def write_paper_files(result: Reproduction, pages: Path | None = None) -> PaperReport:
    """Write paper.html, paper.md and the figures beside the runs, and NAME.md with its figures into `pages`."""
    from lmexp.report.export.paper_page import page_name, write_page
    from lmexp.report.page.paper import write_paper

    page, markdown = write_paper(result), write_page(result, result.folder)
    if pages is not None:
        name = page_name(result)
        markdown = write_page(result, pages, name, f"{name}-")
    return PaperReport(result, page, markdown)
