"""The glossary has the words of the tables, and names the columns that hold what they mean."""

import re
from pathlib import Path

from lmexp.report import forecasts
from lmexp.report.terminal import paper, status, versus
from lmexp.runs.columns import COLUMNS

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "glossary.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| word "))
]
WORDS = {word.strip("` ") for words, _, _ in ROWS for word in (words, *words.split(", "))}


def test_every_column_that_the_glossary_names_is_documented():
    documented = (ROOT / "docs" / "columns.md").read_text()
    named = [name for *_, columns in ROWS for name in re.findall(r"`(\w+)`", columns)]
    assert len(named) > 20 and all(f"| `{name}` |" in documented and name in COLUMNS for name in named)


def test_the_headings_of_tables_that_are_no_columns_are_in_the_glossary():
    headings = {"run", "state", *status.HIDDEN_FIRST, *versus.RIGHT, *paper.HEADINGS, *forecasts.HEADINGS}
    titles = {text for each in COLUMNS.values() for text in (each.title, f"{each.unit}")}
    assert headings - WORDS - titles == set()


def test_a_word_stands_once_and_is_linked_from_the_readme():
    words = [row[0] for row in ROWS]
    assert sorted(words) == sorted(set(words))
    assert "(docs/glossary.md)" in (ROOT / "README.md").read_text()


def test_the_links_of_the_glossary_lead_to_headings():
    text = (ROOT / "docs" / "glossary.md").read_text()
    for page, anchor in re.findall(r"\((\w+\.md)#([\w-]+)\)", text):
        headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / page).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, anchor
