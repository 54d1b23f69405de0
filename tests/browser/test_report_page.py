"""The report in a browser, as a reader meets it: a file that is opened, read, sorted and re-plotted."""

import pytest
from playwright.sync_api import expect

from lmexp.analysis.frontier import frontier
from lmexp.analysis.table import load_study
from lmexp.report.page.html import write_report
from lmexp.runs.columns import column as column_of
from lmexp.runs.directory import RunDir
from tests.analysis.test_findings import study_of as of_runs
from tests.analysis.test_groups import study_of
from tests.browser.reading import FILLED, HOSTILE, MARKS, column, heading, texts
from tests.report.synthetic import config, record_of


def test_all_charts_are_drawn(page):
    assert {"loss (nats)", "training time (s)", "gpt_nano", "gpt_tiny"} <= set(texts(page, "scatter"))
    assert "training tokens" in texts(page, "curves")
    assert page.locator(MARKS).count() == 8
    assert page.locator("#curves svg .mark-line path").count() == 18  # the failed run has none
    assert page.locator("#parallel svg .mark-line path").count() == 8
    assert {"precision: bf16 against fp32", "change in loss (nats); less is better"} <= set(texts(page, "effects"))
    assert page.locator("#heat svg .mark-rect.role-mark path").count() == 4


def filled_names(page):
    """Return the runs that the scatter chart shows on its frontier."""
    return {mark.get_attribute("aria-label") for mark in page.locator(FILLED).all()}


def on_frontier(page):
    """Return the runs that the table marks."""
    rows = page.locator("#table tbody tr", has=page.locator("td[aria-label='on the frontier']"))
    return set(rows.locator("button.open").all_inner_texts())


def test_the_charts_frontier_is_the_tables(page):
    filled = page.locator(FILLED).count()
    assert filled == column(page, "●").count("●") == 5


def test_the_frontier_follows_the_choice_of_axes(page):
    # bf16 is no cheaper in FLOPs, so only the fp32 half of the runs is left on the frontier.
    page.locator("select[name=cost]").select_option("train_flops")
    expect(page.locator("#scatter svg")).to_contain_text("training compute (FLOPs)")
    expect(page.locator(FILLED)).to_have_count(4)
    assert on_frontier(page) == filled_names(page)
    page.locator("select[name=quality]").select_option("accuracy")
    expect(page.locator("#scatter svg")).to_contain_text("accuracy (share right)")
    expect(page.locator(FILLED)).to_have_count(4)
    assert on_frontier(page) == filled_names(page)
    page.locator("select[name=quality]").select_option("loss")
    page.locator("select[name=cost]").select_option("train_seconds")
    expect(page.locator(FILLED)).to_have_count(5)
    assert on_frontier(page) == filled_names(page), "the report's own marks are back"


def test_the_charts_frontier_is_exact_where_runs_tie(open_page, tmp_path):
    points = [(loss, seconds) for loss in (3.0, 2.5, 2.0) for seconds in (1.0, 2.0, 4.0)] * 2
    for i, (loss, seconds) in enumerate(points):
        made = config("gpt_nano", 2, "fp32", slug=f"r{i}")
        run = RunDir.create(tmp_path / "ties" / f"r{i}", made)
        run.write_record([record_of(made, loss) | {"run_id": f"r{i}", "train_seconds": seconds * loss}])
        run.update_state(state="done")
    study = load_study([tmp_path / "ties"])
    page = open_page(write_report(study, tmp_path))
    for cost in ("train_seconds", "wall_seconds", "train_flops", "tokens_per_second"):
        page.locator("select[name=cost]").select_option(cost)
        expect(page.locator("#scatter svg")).to_contain_text(column_of(cost).heading)
        shown = filled_names(page)
        assert on_frontier(page) == shown
        assert shown == set(study.table["slug"][frontier(study.table, "loss", cost)])


def test_a_tied_row_names_the_cheaper_setting_and_only_on_the_axes_that_were_tested(open_page, tmp_path):
    study = study_of(tmp_path, gain=0.0005, jitter=0.004)  # fp32 takes twice the seconds, for no more than noise
    page = open_page(write_report(study, tmp_path))
    assert sorted(column(page, "tied with")) == ["gpt_nano, bf16", "gpt_tiny, bf16", "–", "–"]
    expect(page.locator("#price")).to_be_visible()
    assert "Within noise of a setting that costs no more" in page.locator("section[aria-labelledby=price]").inner_text()
    page.locator("select[name=cost]").select_option("train_flops")
    expect(page.locator("#scatter svg")).to_contain_text("training compute (FLOPs)")
    assert column(page, "tied with") == ["–"] * 4


def test_the_names_in_the_scatter_stand_on_no_mark_and_that_of_the_best_run_below_it(page):
    boxes = [mark.bounding_box() for mark in page.locator(MARKS).all()]
    marks = [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes]
    shown = page.locator("#scatter svg .mark-text.role-mark text", has_text="n_layers").all()
    names = [name.bounding_box() for name in shown]
    best = max(y for _, y in marks)
    assert max(name["y"] for name in names) > best
    for name in names:
        assert not [1 for x, y in marks if 0 < x - name["x"] < name["width"] and 0 < y - name["y"] < name["height"]]


def test_the_colour_follows_the_choice_of_axis(page):
    page.locator("select[name=colour]").select_option("precision")
    expect(page.locator("#scatter svg")).to_contain_text("bf16")
    assert "gpt_nano" not in texts(page, "scatter")


def test_the_curves_follow_the_choice_of_axis(page):
    page.locator("select[name=against]").select_option("seconds")
    expect(page.locator("#curves svg")).to_contain_text("training time (s)")
    assert "training tokens" not in texts(page, "curves")


def test_axes_are_logarithmic_or_linear_and_any_number_can_be_one(page):
    ticks = texts(page, "scatter")
    page.get_by_label("Cost axis").select_option("linear")
    expect(page.locator("#scatter svg")).to_contain_text("25")
    assert texts(page, "scatter") != ticks
    page.get_by_label("Quality", exact=True).select_option("tokens_per_second")
    expect(page.locator("#scatter svg")).to_contain_text("throughput (tokens/s)")
    page.get_by_label("Cost", exact=True).select_option("d_model")
    expect(page.locator("#scatter svg")).to_contain_text("width")
    expect(page.locator(MARKS)).to_have_count(8)


def test_the_heat_map_and_the_effects_follow_the_choices(page):
    page.get_by_label("Across").select_option("precision")
    expect(page.locator("#heat svg")).to_contain_text("bf16")
    page.get_by_label("Quality", exact=True).select_option("accuracy")
    expect(page.locator("#effects svg")).to_contain_text("change in accuracy (share right); more is better")
    expect(page.locator("#heat svg")).to_contain_text("mean accuracy (share right); down: model")


def test_a_heading_sorts_and_sorts_back(page):
    losses = column(page, "loss")
    assert losses[:8] == sorted(losses[:8]) and losses[8:] == ["–", "–"]
    heading(page, "loss").click()
    assert column(page, "loss")[:8] == losses[7::-1] and column(page, "loss")[8:] == ["–", "–"]
    assert page.locator('th[aria-sort="descending"]').count() == 1
    heading(page, "training time").click()
    seconds = [float(text) for text in column(page, "training time")[:8]]
    assert seconds == sorted(seconds)
    heading(page, "throughput").click()
    assert column(page, "throughput")[0] == "509k"  # more is better, so the most comes first


def test_the_keyboard_sorts_and_keeps_its_place(page):
    heading(page, "throughput").focus()
    page.keyboard.press("Enter")
    assert column(page, "throughput")[0] == "509k"
    expect(heading(page, "throughput")).to_be_focused()
    page.keyboard.press("Space")
    assert column(page, "throughput")[0] == "39.1k"
    expect(page.locator("th[aria-sort=ascending]")).to_contain_text("throughput")


def test_columns_can_be_chosen(page):
    few = page.locator("#table thead th").count()
    page.get_by_text("Columns", exact=True).click()
    page.get_by_role("button", name="All columns").click()
    assert page.locator("#table thead th").count() > few + 20
    assert "the loss was NaN at step 40" in page.locator("#table tbody").text_content()
    page.get_by_role("button", name="The first choice").click()
    assert page.locator("#table thead th").count() == few
    page.get_by_role("checkbox", name="perplexity").uncheck()
    assert page.locator("#table thead th").count() == few - 1


def test_the_runs_name_stays_in_sight_where_the_table_is_wide(open_page, report):
    page = open_page(report, viewport={"width": 420, "height": 900})
    name = page.locator("#table tbody th").first
    page.locator(".wide").evaluate("node => { node.scrollLeft = 300; }")
    left, edge = name.evaluate(
        "node => [node.getBoundingClientRect().x, node.closest('.wide').getBoundingClientRect().x]"
    )
    assert left == pytest.approx(edge, abs=1)


def test_a_hostile_name_is_text_in_the_table_and_in_tooltips(page):
    assert HOSTILE in column(page, "run")
    page.locator(MARKS + f'[aria-label="{HOSTILE}"]').hover()
    tooltip = page.locator("#vg-tooltip-element")
    expect(tooltip).to_contain_text(HOSTILE)
    assert tooltip.locator("script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 800, 1280])
def test_it_fits_the_window_and_is_readable_in_both_schemes(open_page, report, scheme, width):
    page = open_page(report, color_scheme=scheme, viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    light, ink = page.evaluate(
        """[getComputedStyle(document.documentElement).backgroundColor,
        getComputedStyle(document.querySelector('#scatter svg text')).fill]
        .map((colour) => colour.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 765)"""
    )
    assert (light > 0.9 and ink < 0.2) if scheme == "light" else (light < 0.2 and ink > 0.8)


def test_charts_change_their_ink_with_the_scheme(page):
    page.emulate_media(color_scheme="dark")
    expect(page.locator("#scatter svg text").first).to_have_css("fill", "rgb(228, 231, 235)")


def test_a_table_of_one_run_has_one_row(open_page, tmp_path):
    study = of_runs(tmp_path, [({"precision": "fp32"}, 3.0, 1.0)], {"precision": ["fp32"]})
    expect(open_page(write_report(study, tmp_path)).locator("#count")).to_have_text("1 row")
