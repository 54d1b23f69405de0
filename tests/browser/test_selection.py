"""One selection for the whole page: a filter, a box in the scatter, a box across the parallel lines."""

from dataclasses import replace

import pytest
from playwright.sync_api import expect

from lmexp.analysis.filters import matching
from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.report.page.html import write_report
from tests.browser.reading import MARKS, column, drag
from tests.report.synthetic import write_study


def count(page):
    return page.locator("#count")


def curves(page):
    return page.locator("#curves svg .mark-line path")


def bright(page):
    """The marks that are not dimmed."""
    return page.locator(MARKS + '[opacity="1"]')


def test_searching_filters_rows_by_every_word(page):
    page.get_by_label("Filter").fill("gpt_nano BF16")
    expect(count(page)).to_have_text("3 of 10 rows selected")
    assert page.locator("#table tbody tr").count() == 3
    page.get_by_label("Filter").fill("no such word")
    expect(count(page)).to_have_text("0 of 10 rows selected")
    assert page.locator("#table tbody tr").count() == 0


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("loss<2.8", 4),
        ("loss<=2.5", 1),
        ("precision=bf16", 6),
        ("n_layers>=4", 5),
        ("state!=done", 2),
        ("seed=1", 2),
        ("precision=='bf16'", 6),
    ],
)
def test_the_filter_takes_conditions(page, condition, rows):
    page.get_by_label("Filter").fill(condition)
    expect(count(page)).to_have_text(f"{rows} of 10 rows selected")


EXPRESSIONS = [
    "(loss < 2.8 or seed == 1) and model.n_layers != 2", "tokens / n_params >= 4", "loss is not null", "energy_kwh > 1",
    "tokens >= 1M", "TINY in model", "gpt_tiny bf16", "training_time <= 1e-2", "`model.n_layers` == 4",
    "seed in (1, 2)",
]  # fmt: skip


def test_the_filter_takes_the_expressions_of_the_command_line_with_the_same_result(page, report):
    """All of the grammar is tested in test_one_grammar.py; here it meets the columns of a study."""
    table = load_study([report.parent]).table
    for expression in EXPRESSIONS:
        page.get_by_label("Filter").fill(expression)
        expect(count(page)).to_have_text(f"{matching(table, expression).sum()} of 10 rows selected")


def test_what_is_no_expression_selects_nothing_and_is_said_as_on_the_command_line(page, report):
    table = load_study([report.parent]).table
    for expression in ("(loss < 3", "precision < 3", "gpt_nano precison=bf16", "zzzzzz<3", "loss"):
        with pytest.raises(UserError) as said:
            matching(table, expression)
        page.get_by_label("Filter").fill(expression)
        expect(count(page)).to_have_text(f"0 of 10 rows selected: {said.value}")


def test_the_page_knows_which_rows_are_on_the_frontier_of_the_report(page):
    page.locator("select[name=cost]").select_option("peak_memory_gb")
    page.get_by_label("Filter").fill("frontier")
    marks = page.evaluate("JSON.parse(document.getElementById('data').textContent).rows.frontier")
    expect(count(page)).to_have_text(f"{sum(marks)} of 10 rows selected")


def test_the_filter_reaches_the_charts(page):
    page.get_by_label("Filter").fill("precision=fp32")
    expect(bright(page)).to_have_count(4)
    expect(curves(page)).to_have_count(8)
    expect(page.locator("#effects svg")).to_contain_text("precision: bf16 against fp32")  # the axis stays
    expect(page.locator("#effects svg .mark-symbol.role-mark path")).to_have_count(2)  # without a mark: no pairs


def test_a_box_in_the_scatter_filters_table_and_charts(page):
    drag(page, "scatter", (0.4, 0.5), (0.999, 0.999))
    expect(count(page)).to_have_text("4 of 10 rows selected")
    assert set(column(page, "model")) == {"gpt_tiny"}
    expect(bright(page)).to_have_count(4)
    expect(curves(page)).to_have_count(8)
    expect(page.locator("#heat svg .mark-rect.role-mark path")).to_have_count(2)


def test_a_box_across_the_lines_filters_table_and_charts(page):
    # The third line is the precision, and bf16 is above fp32 on it.
    drag(page, "parallel", (0.45, 0.02), (0.55, 0.3))
    expect(count(page)).to_have_text("4 of 10 rows selected")
    assert set(column(page, "precision")) == {"bf16"}
    expect(bright(page)).to_have_count(4)


def test_filter_and_both_boxes_make_one_selection_and_clear_ends_it(page):
    drag(page, "scatter", (0.4, 0.5), (0.999, 0.999))
    drag(page, "parallel", (0.45, 0.02), (0.55, 0.3))
    page.get_by_label("Filter").fill("n_layers=4")
    expect(count(page)).to_have_text("1 of 10 rows selected")
    page.get_by_role("button", name="Clear selection").click()
    expect(count(page)).to_have_text("10 rows")
    expect(bright(page)).to_have_count(8)
    expect(page.get_by_label("Filter")).to_have_value("")
    expect(page.get_by_role("button", name="Clear selection")).to_be_disabled()


def test_escape_clears_and_a_click_on_nothing_drops_the_box(page):
    drag(page, "scatter", (0.4, 0.5), (0.999, 0.999))
    expect(count(page)).to_have_text("4 of 10 rows selected")
    page.keyboard.press("Escape")
    expect(count(page)).to_have_text("10 rows")
    drag(page, "scatter", (0.4, 0.5), (0.999, 0.999))
    expect(count(page)).to_have_text("4 of 10 rows selected")
    drag(page, "scatter", (0.02, 0.98), (0.02, 0.98))
    expect(count(page)).to_have_text("10 rows")


def test_the_count_is_announced(page):
    assert count(page).get_attribute("aria-live") == "polite"


def test_another_axis_drops_the_box_that_was_drawn_on_the_first(page):
    drag(page, "scatter", (0.4, 0.5), (0.999, 0.999))
    expect(count(page)).to_have_text("4 of 10 rows selected")
    page.locator("select[name=cost]").select_option("train_flops")
    expect(count(page)).to_have_text("10 rows")


def test_among_many_rows_a_chart_is_drawn_and_follows_when_it_is_scrolled_to(open_page, report, tmp_path):
    many = tmp_path / "many.html"
    many.write_text(report.read_text().replace("const CANVAS = 1000;", "const CANVAS = 5;"))
    page = open_page(many)
    assert page.locator("#heat canvas").count() == 0
    for chart in ("scatter", "heat"):
        page.locator(f"#{chart}").scroll_into_view_if_needed()
        expect(page.locator(f"#{chart} canvas")).to_be_visible()
    page.get_by_label("Filter").fill("precision=bf16")
    page.wait_for_function("views.heat.data('rows').length === 4")
    picked = "views.scatter.data('rows').filter((row) => row.selected).length"
    assert page.evaluate(picked) == 8
    page.locator("#scatter").scroll_into_view_if_needed()
    page.wait_for_function(f"{picked} === 4")


def test_runs_that_do_not_compare_are_shown_one_part_at_a_time(open_page, tmp_path):
    folder = write_study(tmp_path)
    study = load_study([folder])
    texts = study.table["model"].map({"gpt_nano": "poem", "gpt_tiny": "log"})
    scored = dict.fromkeys(["validation_fingerprint", "data_fingerprint"], texts)
    file = write_report(replace(study, table=study.table.assign(**scored)), folder)
    page = open_page(file)
    expect(count(page)).to_have_text("6 rows of model gpt_nano")  # two have no result, and may be of any text
    expect(page.locator(MARKS)).to_have_count(4)
    expect(page.locator("#scatter svg")).to_contain_text("loss (nats), model gpt_nano")
    page.locator("select[name=down]").select_option("model.n_layers")
    page.locator("select[name=across]").select_option("precision")
    means = page.locator("#heat svg .mark-text.role-mark").first.locator("text")
    expect(means).to_have_text(["2.9000", "2.9100", "3.1000", "3.1100"])  # of one text alone
    expect(page.locator("#effects svg")).to_contain_text("n_layers: 4 against 2")
    expect(curves(page)).to_have_count(10)  # one that failed has none, one that diverged has
    page.get_by_label("Runs of").select_option("model gpt_tiny")
    expect(count(page)).to_have_text("6 rows of model gpt_tiny")
    expect(page.locator("#scatter svg")).to_contain_text("loss (nats), model gpt_tiny")
    expect(page.locator(MARKS)).to_have_count(4)
    page.get_by_label("Filter").fill("n_layers=2")
    expect(count(page)).to_have_text("3 of 6 rows of model gpt_tiny selected")
    page.get_by_label("Filter").fill("")
    # Parameters compare whatever was scored.
    page.locator("select[name=quality]").select_option("n_params")
    expect(count(page)).to_have_text("10 rows")
    expect(page.get_by_label("Runs of")).to_have_count(0)
    expect(page.locator(MARKS)).to_have_count(8)
    expect(page.locator("#curves-note")).to_contain_text("The runs were scored on different texts")
    # The address keeps the part.
    again = open_page(file, "#part=model%20gpt_tiny")
    expect(count(again)).to_have_text("6 rows of model gpt_tiny")
