"""Every format holds the same table, and names from configs are text in each."""

import csv
import io
import json
import re

import pandas as pd
import pytest

from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.report.export.formats import FORMATS, format_named, rendered
from lmexp.report.options import ViewOptions
from lmexp.report.view import StudyView
from tests.report.synthetic import write_study

HOSTILE = (
    "=cmd|'/c calc'!A1 <script>alert(1)</script> \\input{x} $x$ [a](http://b.c) **b** | `c` & 50% _d_ #1 ~^\n\r\x1b[31m"
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load_study([write_study(tmp_path_factory.mktemp("outputs"))])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = write_study(tmp_path_factory.mktemp("outputs"), slug=HOSTILE)
    (folder / "sweep.json").unlink()
    return StudyView.of(load_study([folder]), ViewOptions())


def test_each_format_has_every_row(study):
    shown = StudyView.of(study, ViewOptions(top=1))
    assert rendered(shown, "md").count(b"\n| ") == 1 + 10
    assert rendered(shown, "html").count(b"<tr>") == 1 + 10
    assert len(re.findall(rb" \\\\$", rendered(shown, "latex"), re.MULTILINE)) == 1 + 10
    assert len(list(csv.DictReader(io.StringIO(rendered(shown, "csv").decode())))) == 10
    assert len(json.loads(rendered(shown, "json"))["runs"]) == 10
    assert len(pd.read_parquet(io.BytesIO(rendered(shown, "parquet")))) == 10


def test_chosen_columns_and_their_order(study):
    shown = StudyView.of(study, ViewOptions(columns=("slug", "loss"), sort="loss"))
    rows = rendered(shown, "csv").decode().splitlines()
    assert rows[0] == "slug,loss" and rows[1] == "gpt_tiny-l4-fp32-s0,2.5" and len(rows) == 11
    with pytest.raises(UserError, match="Did you mean 'loss'"):
        rendered(StudyView.of(study, ViewOptions(columns=("los",))), "md")


def test_markdown_shows_a_hostile_name_as_text(hostile):
    (line,) = [line for line in rendered(hostile, "md").decode().splitlines() if "calc" in line]
    assert "\\<script\\>" in line and "cmd\\|" in line and "\\*\\*b\\*\\*" in line and "\\`c\\`" in line
    assert "\\[a\\](http\\://b.c)" in line and "\x1b" not in line
    assert len(re.findall(r"(?<!\\)\|", line)) == len(
        re.findall(r"\|", rendered(hostile, "md").decode().split("\n")[1])
    )


def test_html_shows_a_hostile_name_as_text(hostile):
    page = rendered(hostile, "html").decode()
    assert "<script" not in page and "&lt;script&gt;" in page


def test_latex_shows_a_hostile_name_as_text(hostile):
    (line,) = [line for line in rendered(hostile, "latex").decode().splitlines() if "calc" in line]
    assert r"\textbackslash{}input\{x\}" in line and r"\$x\$" in line and r"50\%" in line and r"\_d\_" in line
    assert r"\#1" in line and r"\textless{}script\textgreater{}" in line


def test_a_spreadsheet_sees_no_formula_and_numbers_are_untouched(hostile):
    rows = list(csv.DictReader(io.StringIO(rendered(hostile, "csv").decode())))
    assert sum(row["slug"].startswith("'=cmd") for row in rows) == 1
    assert not any(str(value)[:1] in ("=", "+", "@") for row in rows for value in row.values())
    table = pd.DataFrame({"x": [-1.5, 2.0], "y": pd.array(["-3", "+a"], dtype="string"), "=z": [1, 2]})
    from lmexp.report.export.files import csv_text

    assert csv_text(table) == "x,y,'=z\n-1.5,-3,1\n2.0,'+a,2\n"


def test_parquet_holds_a_name_as_it_is(hostile):
    assert HOSTILE in pd.read_parquet(io.BytesIO(rendered(hostile, "parquet")))["slug"].tolist()


@pytest.mark.parametrize(
    "view",
    [ViewOptions(), ViewOptions(group_by="model, n_layers >= 4"), ViewOptions(cost=("dollars", "train_seconds"))],
)
@pytest.mark.parametrize("name", FORMATS)
def test_a_study_without_results_has_a_table_or_a_sentence(tmp_path, name, view):
    folder = write_study(tmp_path)
    for record in folder.glob("*/record.json"):
        record.unlink()
    for state in folder.glob("*/state.json"):
        state.write_text('{"state": "failed"}')
    if view.group_by:
        with pytest.raises(UserError, match="no run has finished"):
            StudyView.of(load_study([folder]), view)
    else:
        assert rendered(StudyView.of(load_study([folder]), view), name)


def test_a_format_is_named_or_known_by_its_file(tmp_path):
    assert format_named(None, None) is None and format_named("tex", None) == "latex"
    assert format_named(None, tmp_path / "a.MD") == "md" and format_named("csv", tmp_path / "a.md") == "csv"
    for wrong in (("xls", None), (None, tmp_path / "a"), ("parquet", None)):
        with pytest.raises(UserError, match=r"^--(format|output)"):
            format_named(*wrong)
