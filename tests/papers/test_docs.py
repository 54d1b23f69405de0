"""The page about papers lists the functions that there are, in their words."""

from pathlib import Path

from lmexp.papers.functions import FUNCTIONS

PAGE = Path(__file__).parents[2] / "docs" / "papers.md"


def test_the_page_lists_every_function():
    rows = [f"| `{function.signature}` | {function.meaning} |" for function in FUNCTIONS.values()]
    listed = [line for line in PAGE.read_text().splitlines() if line.startswith("| `") and "(" in line]
    assert listed == rows
