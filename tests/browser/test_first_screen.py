"""The first screen of the page: the question, at most three sentences of the answer, and the chart that shows it."""

import re

import pytest
from playwright.sync_api import expect

from lmexp.analysis.table import load_study
from lmexp.files import read_json, write_json
from lmexp.report.page.html import write_report
from tests.analysis.lawful import lawful_study
from tests.report.synthetic import QUESTION, write_study

SCREEN = {"width": 1400, "height": 900}
ONE_ARM = [("gpt", "fp32")]


def written(folder, **changes):
    write_json(folder / "sweep.json", read_json(folder / "sweep.json") | {"question": QUESTION} | changes)
    return folder


DESIGNS = {
    "isoflop": lambda at: lawful_study(at, arms=ONE_ARM, flops=[1e13, 2e13, 4e13, 8e13]),
    "law": lambda at: lawful_study(at, arms=ONE_ARM),
    "speedup": lambda at: lawful_study(at, widths=(64,), tokens=[1e6 * 3**n for n in range(6)], worse=0.2),
    "effects": write_study,
    "trials": lambda at: written(write_study(at), objectives=["loss"]),
    "scatter": lambda at: written(write_study(at), objectives=["loss", "train_seconds"]),
}


@pytest.mark.parametrize("chart", DESIGNS)
def test_question_answer_and_the_whole_chart_are_on_the_first_screen(open_page, tmp_path, chart):
    folder = written(DESIGNS[chart](tmp_path))
    page = open_page(write_report(load_study([folder]), folder), viewport=SCREEN)
    drawn = page.locator(f"#lead #{chart} svg").first
    expect(drawn).to_be_visible()
    for part in (page.locator(".question"), page.locator("#findings"), drawn):
        box = part.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= SCREEN["height"]
    assert drawn.bounding_box()["height"] >= 200
    assert 1 <= page.locator("#findings p").count() <= 3
    assert drawn.get_attribute("aria-label") and page.locator(f"#{chart}").count() == 1


def test_the_runs_that_are_not_selected_are_faint_in_the_chart(open_page, tmp_path):
    folder = DESIGNS["isoflop"](tmp_path)
    page = open_page(write_report(load_study([folder]), folder), viewport=SCREEN)
    faint = page.locator('#isoflop svg .mark-symbol.role-mark path[opacity="0.08"]')
    expect(faint).to_have_count(0)
    page.get_by_label("Filter").fill("d_model > 64")
    expect(faint).to_have_count(8)
    page.get_by_role("button", name="Clear selection").click()
    expect(faint).to_have_count(0)


def test_hovering_a_run_says_its_flops_as_the_axes_do(open_page, tmp_path):
    folder = lawful_study(tmp_path, arms=ONE_ARM, flops=[1e18, 2e18, 4e18, 8e18])
    page = open_page(write_report(load_study([folder]), folder), viewport=SCREEN)
    page.locator("#isoflop svg .mark-symbol.role-mark path[opacity]").last.hover()
    told = page.locator("#vg-tooltip-element")
    expect(told).to_contain_text("parameters")
    expect(told).to_contain_text(re.compile(r"FLOPs:?\s*\d\.\d\de18"))


@pytest.mark.parametrize("chart", DESIGNS)
def test_on_a_phone_the_chart_is_as_wide_as_the_page(open_page, tmp_path, chart):
    folder = DESIGNS[chart](tmp_path)
    page = open_page(write_report(load_study([folder]), folder), viewport={"width": 390, "height": 844})
    plot = page.locator(f"#{chart} svg .mark-group.role-frame path.background").first.bounding_box()
    assert plot["width"] > 200 and plot["x"] + plot["width"] <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
