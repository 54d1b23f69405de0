"""The pages about papers say what the papers' files and the functions say."""

import re
from pathlib import Path

import pytest

from lmexp.papers.functions import FUNCTIONS
from lmexp.papers.paper import POINTS, SCALES, JudgedOn, read_paper
from lmexp.report.export.markdown import code, escaped
from lmexp.report.export.paper_page import published_cells

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "papers.md"
MAX_BYTES = 100_000
"""Of a figure in the repository."""


def test_the_page_lists_every_function():
    rows = [f"| `{function.signature}` | {function.meaning} |" for function in FUNCTIONS.values()]
    listed = [line for line in PAGE.read_text().splitlines() if line.startswith("| `") and "(" in line]
    assert listed == rows


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "papers").glob("*.md")), ids=lambda page: page.stem)
def test_the_page_of_a_paper_says_what_its_file_says(page: Path):
    scale: JudgedOn = next((scale for scale in (*SCALES, POINTS) if page.stem.endswith(f"-{scale}")), "cpu")
    paper = read_paper(ROOT / "sweeps" / "papers" / f"{page.stem.removesuffix(f'-{scale}')}.yaml")
    scale = scale if paper.has_sweep else paper.judged_on
    text = page.read_text()
    rows = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in text.splitlines() if line.startswith("| `")]
    shown = [[row[at] for at in (0, 1, 2, 5)] for row in rows if len(row) == 7]
    assert shown == [published_cells(claim) for claim in paper.claims_at(scale)]
    for claim in paper.claims_at(scale):
        assert f"| {code(claim.name)} | {code(claim.value)} |" in text
    assert all(escaped(note) in text for note in paper.notes_at(scale))
    figures = re.findall(r"\]\(([^)/]+\.svg)\)", text)
    assert len(figures) == len(paper.figures_at(scale)) + 1
    assert all((page.parent / name).stat().st_size < MAX_BYTES for name in figures)
