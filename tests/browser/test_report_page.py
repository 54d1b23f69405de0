"""The report in a browser, as a reader meets it: a file that is opened, read, sorted, searched and re-plotted."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from lmexp.analysis.columns import column as column_of
from lmexp.analysis.frontier import frontier
from lmexp.analysis.table import load_study
from lmexp.report.html import write_report
from lmexp.runs.directory import RunDir
from tests.report.synthetic import config, record_of, write_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = "<script>alert(1)</script>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = write_study(tmp_path_factory.mktemp("outputs"), slug=HOSTILE)
    return write_report(load_study([folder]), folder)


@pytest.fixture
def page(browser, report):
    """The opened page; at the end, it must have said and asked for nothing."""
    said, asked = [], []
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(report.as_uri())
    opened.wait_for_function("window.views && window.views.frontier && window.views.curves")
    yield opened
    opened.close()
    assert said == []
    assert asked == [report.as_uri()]


def texts(page: Page, chart: str) -> list[str]:
    return page.locator(f"#{chart} svg text").all_text_contents()


def column(page: Page, heading: str) -> list[str]:
    headings = page.locator("#table thead th button").all_text_contents()
    at = headings.index(heading) + 1
    return page.locator(f"#table tbody tr > :nth-child({at})").all_text_contents()


def heading(page: Page, name: str):
    return page.locator("#table thead").get_by_role("button", name=name, exact=True)


def test_both_charts_are_drawn(page):
    assert {"loss (nats per token)", "training time (s)", "gpt_nano", "gpt_tiny"} <= set(texts(page, "frontier"))
    assert "training tokens" in texts(page, "curves")
    assert page.locator("#frontier svg .mark-symbol.role-mark path").count() == 8
    assert page.locator("#curves svg .mark-line path").count() == 18  # the failed run has none


def test_the_charts_frontier_is_the_tables(page):
    filled = page.locator('#frontier svg .mark-symbol.role-mark path:not([fill="transparent"])').count()
    assert filled == column(page, "●").count("●") == 5


def test_the_frontier_follows_the_choice_of_axes(page):
    # bf16 is no cheaper in FLOPs, so only the fp32 half of the runs is left on the frontier.
    page.locator("select[name=cost]").select_option("train_flops")
    expect(page.locator("#frontier svg")).to_contain_text("training compute (FLOPs)")
    assert page.locator('#frontier svg .mark-symbol.role-mark path:not([fill="transparent"])').count() == 4
    page.locator("select[name=quality]").select_option("accuracy")
    expect(page.locator("#frontier svg")).to_contain_text("accuracy (share of tokens)")
    assert page.locator('#frontier svg .mark-symbol.role-mark path:not([fill="transparent"])').count() == 4


def test_the_charts_frontier_is_exact_where_runs_tie(browser, tmp_path):
    points = [(loss, seconds) for loss in (3.0, 2.5, 2.0) for seconds in (1.0, 2.0, 4.0)] * 2
    for i, (loss, seconds) in enumerate(points):
        made = config("gpt_nano", 2, "fp32", slug=f"r{i}")
        run = RunDir.create(tmp_path / "ties" / f"r{i}", made)
        run.write_record([record_of(made, loss) | {"run_id": f"r{i}", "train_seconds": seconds * loss}])
        run.update_state(state="done")
    study = load_study([tmp_path / "ties"])
    page = browser.new_page()
    page.goto(write_report(study, tmp_path).as_uri())
    page.wait_for_function("window.views && window.views.frontier")
    for cost in ("train_seconds", "wall_seconds", "train_flops"):
        page.locator("select[name=cost]").select_option(cost)
        expect(page.locator("#frontier svg")).to_contain_text(column_of(cost).heading)
        filled = page.locator('#frontier svg .mark-symbol.role-mark path:not([fill="transparent"])')
        shown = {mark.get_attribute("aria-label") for mark in filled.all()}
        assert shown == set(study.table["slug"][frontier(study.table, "loss", cost)])
    page.close()


def test_the_colour_follows_the_choice_of_axis(page):
    page.locator("#frontier-choices select[name=colour]").select_option("precision")
    expect(page.locator("#frontier svg")).to_contain_text("bf16")
    assert "gpt_nano" not in texts(page, "frontier")


def test_the_curves_follow_the_choice_of_axis(page):
    before = page.locator("#curves svg").inner_html()
    page.locator("select[name=against]").select_option("seconds")
    expect(page.locator("#curves svg")).to_contain_text("training time (s)")
    assert page.locator("#curves svg").inner_html() != before


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


def test_searching_filters_rows_by_every_word(page):
    page.get_by_label("Search").fill("gpt_nano BF16")
    assert page.locator("#table tbody tr").count() == 3
    assert page.locator("#count").text_content() == "3 of 10 rows"
    page.get_by_label("Search").fill("no such run")
    assert page.locator("#table tbody tr").count() == 0


def test_all_columns_are_one_click_away(page):
    few = page.locator("#table thead th").count()
    page.get_by_label("All columns").check()
    assert page.locator("#table thead th").count() > few + 20
    assert "the loss was NaN at step 40" in page.locator("#table tbody").text_content()


def test_a_hostile_name_is_text_in_the_table_and_in_tooltips(page):
    assert HOSTILE in column(page, "run")
    at = page.evaluate(
        "window.views.frontier.data('rows').filter((row) => row.state === 'done')"
        f".findIndex((row) => row.slug === {HOSTILE!r})"
    )
    page.locator("#frontier svg .mark-symbol.role-mark path").nth(at).hover()
    tooltip = page.locator("#vg-tooltip-element")
    expect(tooltip).to_contain_text(HOSTILE)
    assert tooltip.locator("script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [800, 1280])
def test_it_fits_the_window_and_is_readable_in_both_schemes(browser, report, scheme, width):
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    page.goto(report.as_uri())
    page.wait_for_function("window.views && window.views.frontier && window.views.curves")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    light, ink = page.evaluate(
        """[getComputedStyle(document.documentElement).backgroundColor,
        getComputedStyle(document.querySelector('#frontier svg text')).fill]
        .map((colour) => colour.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 765)"""
    )
    assert (light > 0.9 and ink < 0.2) if scheme == "light" else (light < 0.2 and ink > 0.8)
    page.close()
