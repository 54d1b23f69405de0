"""A paper's page as Markdown: what it says, and that its figures are small files beside it."""

from pathlib import Path

import pytest

from lmexp.papers.paper import Claim, Paper
from lmexp.papers.reproduction import Reproduction, judge_paper
from lmexp.report.export.paper_page import write_page
from tests.report.synthetic import write_study


@pytest.fixture
def result(tmp_path: Path) -> Reproduction:
    """Return the verdicts on an invented paper, whose author likes markup."""
    write_study(tmp_path, "papers-invented2024")
    claims = [
        {"name": "low", "claim": "Losses are *low* | always", "where": "table 1", "published": 2.5, "checked": False}
        | {"value": "mean(loss)", "band": [0, 100]},
        {"name": "open", "claim": "It is 1", "where": "figure 2", "value": "mean(loss) / mean(loss)", "band": [2, 3]},
    ]
    paper = Paper(
        title="Title <script>",
        authors="A. _Author_",
        year=2024,
        arxiv="2401.00001",
        claims=[Claim.model_validate(claim) for claim in claims],
        figure=[
            {"title": "Loss [a]", "x": "train_flops", "y": "loss", "by": "precision", "log": ["x"]},
            {"title": "Nothing", "x": "train_flops", "y": "losss"},
        ],  # type: ignore[list-item]  # as YAML has them
        notes=["It failed because of `this`."],
    )
    return judge_paper("invented2024", paper, "cpu", tmp_path)


def test_the_page_has_everything_that_a_reader_needs_and_none_of_its_texts_is_markup(
    result: Reproduction, tmp_path: Path
):
    page = write_page(result, tmp_path / "docs", "invented2024", "invented2024-")
    text = page.read_text()
    for words in (
        "# Title \\<script>\n",
        "A. \\_Author\\_, 2024, [arXiv 2401.00001](https://arxiv.org/abs/2401.00001).",
        "| `low`: Losses are \\*low\\* \\| always | table 1 | 2.5\\* | ",
        "| 0 to 100 | borne out |",
        "| contradicted |",
        "`model.n_layers` (2, 4)",
        "![Loss \\[a\\]](invented2024-figure.svg)",
        "It failed because of \\`this\\`.",
        "there is no column 'losss'. Did you mean 'loss'?\n",
        "\\* a published number that nobody has compared",
        "$ lmexp reproduce invented2024\n",
        "| `low` | `mean(loss)` |",
        f"{result.runs} runs took ",
        "2 others have no result: 1 failed, 1 diverged.",
        f"judged them on {result.date}",
    ):
        assert words in text, words
    drawings = sorted(page.parent.glob("*.svg"))
    assert [file.name for file in drawings] == ["invented2024-claims.svg", "invented2024-figure.svg"]
    assert all(file.stat().st_size < 100_000 for file in drawings)
    claims, figure = (file.read_text() for file in drawings)
    assert "low: borne out" in claims and "open: contradicted" in claims and "currentColor" not in claims + figure
    assert claims.count('fill="#4269d0"') == 2, "each claim has its band"
    assert ">bf16<" in figure and "training compute (FLOPs)" in figure
