"""The table in the terminal is readable at any usual width, whatever the names hold."""

import re

import pytest
from rich.console import Console

from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.report.options import ViewOptions
from lmexp.report.terminal.study import print_study
from lmexp.report.view import StudyView
from tests.report.synthetic import write_study


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return load_study([write_study(tmp_path_factory.mktemp("outputs"))])


def printed(study, width=120, **options):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    print_study(StudyView.of(study, ViewOptions(**options)), console)
    return console.export_text()


def rows_of(text):
    return [line for line in text.splitlines() if re.search(r" [24] +(fp32|bf16) ", line)]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_it_fits_its_width_with_one_line_a_row(demo, width):
    text = printed(demo, width)
    assert max(map(len, text.splitlines())) <= width
    assert len(rows_of(text)) == 10
    assert all("." in row or "–" in row for row in rows_of(text))
    assert "…" not in text


def test_narrow_tables_name_what_they_leave_out(demo):
    assert "Not shown at this width: perplexity" in printed(demo, 60)
    assert "Not shown" not in printed(demo, 160)


def test_rows_are_sorted_by_quality_and_marked(demo):
    rows = rows_of(printed(demo))
    losses = [row.split()[-8] for row in rows]
    assert [row.startswith("*") for row in rows] == [True, True, False, True, False, True, False, True, False, False]
    assert losses[:8] == sorted(losses[:8])
    assert "gpt_nano" in rows_of(printed(demo, sort="train_seconds"))[0]
    assert "gpt_nano" in rows_of(printed(demo, sort="tokens_per_second"))[0]


def test_failed_rows_have_their_state_and_reason(demo):
    text = printed(demo)
    assert "diverged  the loss was NaN at step 40" in text
    assert "OSError: no space left on device" in text


def test_large_counts_have_si_prefixes(demo):
    assert "5.11T" in printed(demo)


def test_an_unknown_column_is_a_wrong_input(demo):
    with pytest.raises(UserError, match="Did you mean 'train_seconds'"):
        printed(demo, sort="train_secs")


def test_markup_in_names_is_text(tmp_path):
    folder = write_study(tmp_path, slug="[bold]x[/bold] [/]")
    (folder / "sweep.json").unlink()  # without axes, runs are shown by name
    assert "[bold]x[/bold] [/]" in printed(load_study([folder]))
