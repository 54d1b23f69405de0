"""Markdown from any text: it is shown as it was written."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lmexp.report.export.markdown import code, escaped, table

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(markdown: str) -> tuple[set[str], str]:
    """Return the kinds of markup in a document, and its text."""
    inline = [part for token in MARKDOWN.parse(markdown) for part in token.children or ()]
    blocks = {token.type for token in MARKDOWN.parse(markdown)}
    return blocks | {part.type for part in inline}, "".join(part.content for part in inline)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet='ab1 _*`[]()<>!|~&;#+-=.:\\"$', max_size=20))
@example("__init__ <b>x</b> [a](http://b) ![c](d) &amp; ~~e~~ a_b_c")
@example("1. first")
@example("---")
@example("# title")
def test_no_character_becomes_markup(text: str):
    flat = " ".join(text.split())
    markup, words = shown(escaped(text))
    assert markup <= {"paragraph_open", "inline", "paragraph_close", "text", "text_special"} and words == flat


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab `|\\*<", max_size=12).map(str.strip).filter(bool))
def test_code_in_a_table_is_one_cell(text: str):
    rendered = MARKDOWN.parse(table(["a", "b"], [[code(text), "x"]]))
    cells = [token for token in rendered if token.type == "inline"]
    (piece,) = cells[2].children or ()
    assert len(cells) == 4 and piece.type == "code_inline" and piece.content == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "plain"), [("-0.05", "-0.05"), ("1.8969", "1.8969"), ("a_b", "a_b"), ("1 % < 2", None)]
)
def test_what_means_nothing_stays_as_it_is(text: str, plain: str | None):
    assert (escaped(text) == text) is (plain is not None)
