"""The page on a phone, 390 pixels wide, and on paper."""

import re
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from lmexp.report.page.document import Table, Titled, document_page
from lmexp.report.page.html import write_report
from tests.analysis.test_findings import study_of as of_runs
from tests.browser.reading import MARKS

PHONE = {"width": 390, "height": 844}
SIDEWAYS = """() => [...document.querySelectorAll("body *")].filter((node) => node.scrollWidth > node.clientWidth + 1
  && ["auto", "scroll"].includes(getComputedStyle(node).overflowX)).map((node) => node.className)"""
SMALL = """() => [...document.querySelectorAll("button, select, input, summary, a[href]")]
  .map((node) => node.labels?.[0]?.contains(node) ? node.labels[0] : node)
 .filter((node) => node.checkVisibility() && !node.matches(".skip"))
  .map((node) => [node.outerHTML.slice(0, 80), node.getBoundingClientRect()])
  .filter(([, box]) => box.width < 24 || box.height < 24)
  .map(([html, box]) => `${html} ${box.width} x ${box.height}`)"""

BROKEN = """() => [...document.querySelectorAll(".wrap :is(td, th)")].filter((it) => it.checkVisibility())
 .flatMap((cell) => {
  const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  const broken = [], range = document.createRange();
  while (texts.nextNode()) {
    for (const word of texts.currentNode.data.matchAll(/[^\\s-]+/g)) {
      range.setStart(texts.currentNode, word.index);
      range.setEnd(texts.currentNode, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1) broken.push(word[0]);
    }
  }
  return broken;
})"""
"""The words in tables of text that break inside; after a hyphen, a new one begins."""


@pytest.fixture
def phone(open_page, report):
    return open_page(report, viewport=PHONE)


def test_only_a_table_scrolls_sideways(phone):
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    assert set(phone.evaluate(SIDEWAYS)) <= {"scroll wide", "scroll"}
    assert phone.locator("figure svg").count() == 5
    for chart in phone.locator("figure svg").all():
        assert chart.evaluate("node => node.getBoundingClientRect().right") <= 390


def test_a_control_is_large_enough_for_a_finger(phone):
    phone.get_by_text("Columns", exact=True).click()
    assert phone.evaluate(SMALL) == []
    phone.locator("#table tbody button").first.click()
    expect(phone.locator("#detail")).to_be_visible()
    assert phone.evaluate(SMALL) == []
    assert phone.evaluate("document.querySelector('#detail').scrollWidth") <= 390


@pytest.mark.parametrize("width", [390, 500, 1280])
def test_the_end_of_a_long_name_is_in_sight_and_a_long_heading_does_not_make_the_head_tall(open_page, tmp_path, width):
    runs = [({"model.n_layers": layers}, 3.0 + layers, 1.0) for layers in (2, 4)]
    study = of_runs(tmp_path, runs, {"model.n_layers": [2, 4]})
    names = [f"gpt_tiny-d_model256-lr0.0003-dropout0.1-warmup0.05-fp32-n_layers{layers}" for layers in (2, 4)]
    table = study.table.assign(**{"slug": names, "score/membership/auc_min_k": 0.5})
    page = open_page(write_report(replace(study, table=table), tmp_path), viewport=PHONE | {"width": width})
    expect(page.locator("#table tbody .name")).to_have_text(names)
    for name in page.locator("#table tbody .name").all():
        assert name.evaluate("node => node.scrollWidth <= node.clientWidth && node.clientWidth < innerWidth / 2")
    line = 13 * 1.4
    assert page.locator("#table thead").evaluate("node => node.offsetHeight") < (6 if width <= 600 else 8) * line


def test_short_words_of_tables_stay_whole_and_long_ones_break(phone):
    """This holds for the tables of the page, of a run, and of a comparison of two runs."""
    state = phone.locator("section[aria-labelledby=unfinished] td:nth-child(2)")
    assert "diverged" in state.all_inner_texts()
    assert [word for word in phone.evaluate(BROKEN) if len(word) <= 14] == []
    for pick in phone.locator("#table tbody button").all()[:2]:
        pick.click()
        assert [word for word in phone.evaluate(BROKEN) if len(word) <= 14] == []
        phone.get_by_role("button", name="Pick to compare").click()
        phone.keyboard.press("Escape")
    phone.get_by_role("button", name="Compare 2 runs").click()
    expect(phone.locator("#comparison")).to_be_visible()
    phone.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert [word for word in phone.evaluate(BROKEN) if len(word) <= 14] == []
    assert phone.evaluate("document.documentElement.scrollWidth") == 390


def test_the_words_of_the_effects_stand_above_their_marks(phone):
    words = phone.locator("#effects svg text", has_text=" against ").all()
    marks = phone.locator("#effects svg :is(.mark-rect, .mark-rule, .mark-symbol).role-mark :is(path, line)").all()
    marks = [box for box in (mark.bounding_box() for mark in marks) if box["height"] < 30]  # not the line at 0
    assert len(words) == 3 and len(marks) > 6
    for label in (word.bounding_box() for word in words):
        assert label["x"] < 40
        top, bottom = label["y"], label["y"] + label["height"]
        assert all(mark["y"] + mark["height"] <= top or mark["y"] >= bottom + 3 for mark in marks)
    plot = phone.locator("#effects svg path.background").first.bounding_box()
    assert plot["width"] > 300


def test_a_name_in_the_scatter_lies_on_no_mark(open_page, tmp_path):
    """The study demo: the cheapest runs are the worst, and runs that cost more are a little worse still."""
    runs = [
        ({"model": model, "model.n_layers": layers, "precision": precision}, loss, seconds)
        for model, layers, precision, loss, seconds in (
            ("gpt_nano", 2, "fp32", 5.8737, 1.28),
            ("gpt_nano", 2, "bf16", 5.8736, 1.69),
            ("gpt_nano", 4, "fp32", 5.8798, 1.93),
            ("gpt_nano", 4, "bf16", 5.8787, 3.55),
            ("gpt_tiny", 2, "fp32", 5.6562, 2.26),
            ("gpt_tiny", 2, "bf16", 5.6463, 2.48),
        )
    ]
    axes = {"model": ["gpt_nano", "gpt_tiny"], "model.n_layers": [2, 4], "precision": ["fp32", "bf16"]}
    page = open_page(write_report(of_runs(tmp_path, runs, axes), tmp_path), viewport=PHONE)
    marks = [mark.bounding_box() for mark in page.locator(MARKS).all()]
    names = page.locator("#scatter svg text", has_text="n_layers").all()
    assert len(marks) == 6 and len(names) == 4, "two names, each with its rim"
    for name in (name.bounding_box() for name in names):
        for mark in marks:
            x, y = mark["x"] + mark["width"] / 2, mark["y"] + mark["height"] / 2
            is_inside = name["x"] < x < name["x"] + name["width"] and name["y"] < y < name["y"] + name["height"]
            assert not is_inside, (name, mark)


def test_the_parallel_lines_lie_below_each_other_and_stand_again_in_a_wide_window(phone):
    boxes = [
        phone.locator("#parallel svg text", has_text=re.compile(f"^{word}$")).first.bounding_box()
        for word in ("model", "loss")
    ]
    assert boxes[0]["x"] == pytest.approx(boxes[1]["x"], abs=2) and boxes[0]["y"] < boxes[1]["y"] - 200
    phone.evaluate("() => { window.old = views.parallel; }")
    phone.set_viewport_size({"width": 1280, "height": 900})
    phone.wait_for_function("views.parallel !== old")
    boxes = [
        phone.locator("#parallel svg text", has_text=re.compile(f"^{word}$")).first.bounding_box()
        for word in ("model", "loss")
    ]
    assert boxes[0]["y"] == pytest.approx(boxes[1]["y"], abs=2) and boxes[0]["x"] < boxes[1]["x"] - 500


def test_a_document_fits_a_phone(open_page, report, tmp_path):
    words = {"kind": "fit", "name": "n" * 60, "about": ["a" * 90], "headline": [], "notes": [], "json_file": "fit.json"}
    chart = {
        "mark": "point",
        "data": {"values": [{"x": 1, "y": 2}]},
        "width": "container",
        "encoding": {"x": {"field": "x"}},
    }
    wide = Table("A table", ["heading"] * 20, [["12345"] * 20])
    file = tmp_path / "fit.html"
    page = document_page(charts={"law": Titled("A law", chart)}, tables=[wide], **words)
    file.write_text(page.replace("<html", "<html data-ready"))
    shown = open_page(file, viewport=PHONE)
    expect(shown.locator("#chart-law svg")).to_be_visible()
    assert shown.evaluate("document.documentElement.scrollWidth") == 390
    assert shown.evaluate(SIDEWAYS) == ["scroll"]


def test_on_paper_there_is_all_that_is_folded_and_no_control_and_the_ink_is_dark(open_page, report):
    page = open_page(report, color_scheme="dark")
    page.get_by_label("Filter").fill("loss < 2.6")
    expect(page.locator("#count")).to_have_text("2 of 10 rows selected")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert (
        page.locator("button:visible, select:visible, input:visible").evaluate_all(
            "nodes => nodes.filter((node) => !node.closest('table')).length"
        )
        == 0
    )
    assert page.locator("main details:not([open]):visible").count() == 0
    expect(page.locator("#selection-on-paper")).to_have_text(
        "Selected by the filter loss < 2.6: 2 of 10 rows selected."
    )
    expect(page.locator("#scatter svg text").first).to_have_css("fill", "rgb(27, 31, 36)")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    # A4 less its margins is 680 pixels wide and 1009 high: no section with a chart is higher.
    page.set_viewport_size({"width": 680, "height": 1009})
    for section in page.locator("section:has(> .chart)").all():
        assert section.evaluate("node => node.getBoundingClientRect().height") < 1009
        assert section.evaluate("node => getComputedStyle(node).breakInside") == "avoid"
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("main details[open]").count() == 0


def test_a_printed_report_has_the_charts_as_wide_as_the_paper(page):
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#scatter svg").get_attribute("width") == "660"
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.wait_for_function("views.scatter.width() > 700")


def test_a_printed_report_of_many_rows_has_the_charts_that_were_never_in_sight(open_page, report, tmp_path):
    many = tmp_path / "many.html"
    many.write_text(report.read_text().replace("const CANVAS = 1000;", "const CANVAS = 5;"))
    page = open_page(many)
    assert page.locator("#heat canvas").count() == 0
    page.evaluate("""addEventListener("beforeprint", () => { // after those of the page: all is ready for the paper
        const widthOf = (view) => view.container().querySelector("canvas").width;
        window.printed = Object.entries(views).map(([name, view]) => [name, widthOf(view)]);
    })""")
    page.pdf()
    figures = [figure.get_attribute("id") for figure in page.locator("main figure.chart:visible").all()]
    assert dict(page.evaluate("printed")) == dict.fromkeys(figures, 660) and len(figures) == 5
    page.get_by_label("Filter").fill("precision=bf16")
    expect(page.locator("#count")).to_contain_text("selected")
    page.locator("#heat").scroll_into_view_if_needed()
    page.wait_for_function("views.heat.data('rows').length === 4")
