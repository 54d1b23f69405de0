"""Charts as files: every chart in every format, in ink that paper takes, and no other format."""

import re
from dataclasses import replace

import altair as alt
import pytest
import vl_convert

from lmexp.analysis.effects.effects import effects
from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.report.charts.base import short_number
from lmexp.report.charts.export import check_formats, write_charts
from tests.report.synthetic import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load_study([write_study(tmp_path_factory.mktemp("outputs"))])


@pytest.mark.slow
def test_every_chart_is_written_in_every_format(study, tmp_path):
    files = write_charts(study, tmp_path / "charts", "loss", "train_seconds", ["png", "svg", "pdf"])
    assert {file.stem for file in files} == {"scatter", "curves", "parallel", "effects", "heat"}
    starts = {".png": b"\x89PNG", ".svg": b"<svg", ".pdf": b"%PDF"}
    assert all(file.read_bytes().startswith(starts[file.suffix]) for file in files)


def test_an_exported_chart_has_a_colour_for_its_ink_and_holds_the_runs(study, tmp_path):
    write_charts(study, tmp_path / "charts", "loss", "train_seconds", ["svg"])
    scatter = (tmp_path / "charts/scatter.svg").read_text()
    assert "currentColor" not in scatter and "training time (s)" in scatter and "gpt_tiny-l4-fp32-s0" in scatter
    effects_svg = (tmp_path / "charts/effects.svg").read_text()
    assert "precision: bf16 against fp32" in effects_svg and "change in loss" in effects_svg
    assert effects_svg.count('aria-label="n_layers: 4 against 2: ') == 1


def test_the_loss_that_no_model_can_beat_is_a_line_of_the_charts(study, tmp_path):
    table = study.table.assign(loss_floor=2.3)
    table.loc[0, "loss_floor"] = 2.25
    write_charts(replace(study, table=table), tmp_path / "charts", "loss", "train_seconds", ["svg"])
    for name in ("scatter", "curves"):
        drawn = (tmp_path / f"charts/{name}.svg").read_text()
        assert drawn.count(">no model can beat 2.3<") == drawn.count(">no model can beat 2.25<") == 1
    write_charts(replace(study, table=table), tmp_path / "charts", "bits_per_byte", "train_seconds", ["svg"])
    bits = 2.3 * table["bits_per_byte"].iloc[1] / table["loss"].iloc[1]
    assert f">no model can beat {bits:.4f}".rstrip("0") in (tmp_path / "charts/scatter.svg").read_text()


def test_the_effects_are_those_of_the_findings(study):
    assert [round(change, 6) for change in effects(study, "precision", "loss", "train_seconds")[0].changes] == [
        0.01
    ] * 4


@pytest.mark.parametrize("formats", ["gif", "", "png,jpeg"])
def test_another_format_is_a_wrong_input(formats):
    with pytest.raises(UserError, match="png, svg and pdf"):
        check_formats(formats)


@pytest.mark.parametrize(("width", "inches"), [("single", 3.25), ("double", 6.75)])
def test_a_figure_is_as_wide_as_a_column_or_the_text_and_its_text_has_7_to_9_points(study, tmp_path, width, inches):
    files = write_charts(study, tmp_path, "loss", "train_seconds", ["svg"], width)
    for file in files:
        svg = file.read_text()
        wide, view = re.search(r'width="([\d.]+)in" .*?viewBox="0 0 (\d+) ', svg).groups()
        assert float(wide) == pytest.approx(inches, abs=0.01)
        points = {float(size) * float(wide) * 72 / float(view) for size in re.findall(r'font-size="([\d.]+)px"', svg)}
        assert min(points) >= 7 and max(points) <= 9
        assert set(re.findall(r'font-family="([^"]*)"', svg)) == {"Tinos, 'Times New Roman', Times, serif"}


def test_another_width_is_a_wrong_input(study, tmp_path):
    with pytest.raises(UserError, match="Did you mean 'single'"):
        write_charts(study, tmp_path, "loss", "train_seconds", ["svg"], "singel")


def test_numbers_in_tooltips_have_three_digits_and_powers_of_ten_where_prefixes_end():
    values = [0, 0.5, 3.9234, 950, 12_345, 1_234_567, 4e17, 1.5e18, 5.764e23, 1.2e-5]
    rows = alt.Chart(alt.InlineData(values=[{"value": value} for value in values]))
    marks = rows.transform_calculate(said=short_number("datum.value")).mark_text().encode(text="said:N", y="value:O")
    drawn = vl_convert.vegalite_to_svg(marks.properties(height=900).to_dict())
    said = re.findall(r'role-mark marks"(.*)', drawn, re.DOTALL)[0]
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", said)
    assert texts == ["0.00", "0.500", "3.92", "950", "12.3k", "1.23M", "400P", "1.50e18", "5.76e23", "1.20e-5"]
