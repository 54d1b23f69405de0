"""A paper's reproduction as one page, `paper.html`, which opens without a network."""

from pathlib import Path

from lmexp.files import write_atomically
from lmexp.papers.drawing import Drawing
from lmexp.papers.overview import counts_in_words
from lmexp.papers.reproduction import CLAIMS, Reproduction
from lmexp.report.charts.claims import CHART_NOTE, claim_chart
from lmexp.report.charts.figure import figure_chart
from lmexp.report.figure_words import sentences_of
from lmexp.report.page.document import Table, Titled, document_page
from lmexp.report.terminal.paper import HEADINGS, TEXT_HEADINGS, claim_sentence, claim_texts, notes_of, source_of
from lmexp.report.texts import NULL
from lmexp.units import counted

PAGE = "paper.html"


def write_paper(result: Reproduction) -> Path:
    """Write `paper.html` beside the runs, atomically, and return its path."""
    figures = {
        f"figure-{at}": Titled(one.figure.title, figure_chart(one).to_dict(), sentences_of(one))
        for at, one in enumerate(result.drawings, 1)
        if isinstance(one, Drawing)
    }
    claims = {
        f"claim-{one.claim.name}": Titled(f"{one.claim.name}: {one.verdict}", chart.to_dict())
        for one in result.judged
        if (chart := claim_chart(one))
    }
    page = document_page(
        kind="reproduce",
        name=result.paper.title,
        about=[source_of(result.paper), f"{result.basis[:1].upper()}{result.basis[1:]}, judged on {result.date}."],
        headline=[f"Of {counted(len(result.judged), 'claim')}: {counts_in_words(result.verdicts)}."],
        notes=[*map(claim_sentence, result.judged), *notes_of(result), *([CHART_NOTE] if claims else [])],
        charts=figures | claims,
        tables=[Table("Claims and verdicts", HEADINGS, _rows(result), TEXT_HEADINGS), _expressions(result)],
        json_file=CLAIMS,
    )
    file = result.folder / PAGE
    write_atomically(file, page)
    return file


def _rows(result: Reproduction) -> list[list[str]]:
    return [[NULL if text is None else text for text in claim_texts(one)] for one in result.judged]


def _expressions(result: Reproduction) -> Table:
    """Return the table that says how each number is computed."""
    rows = [[one.claim.name, one.claim.value] for one in result.judged]
    return Table("How each number is computed", ("claim", "expression"), rows, ("claim", "expression"))
