"""A view that is shared by its address, and runs side by side."""

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from lmexp.analysis.table import load_study
from tests.browser.reading import column, drag, heading
from tests.browser.test_detail import detail, open_run


@pytest.fixture(scope="module")
def ids(report):
    table = load_study([report.parent]).table
    return dict(zip(table["slug"], table["run_id"], strict=True))


def test_the_address_brings_back_axes_filter_box_sort_columns_and_run(open_page, report, page, ids):
    page.locator("select[name=cost]").select_option("train_flops")
    page.get_by_label("Quality axis").select_option("log")
    page.locator("select[name=colour]").select_option("precision")
    page.get_by_label("Filter").fill("precision=bf16")
    heading(page, "throughput").click()
    page.get_by_text("Columns", exact=True).click()
    page.get_by_role("checkbox", name="perplexity").uncheck()
    drag(page, "parallel", (0.36, 0.02), (0.46, 0.3))
    expect(page.locator("#count")).to_have_text("4 of 10 rows selected")
    open_run(page, "gpt_nano-l4-bf16-s0")
    expect(page).to_have_url(re.compile(f"run={ids['gpt_nano-l4-bf16-s0']}$"))
    shown = column(page, "run")
    page = open_page(report, page.url[page.url.index("#") :])
    expect(detail(page).get_by_role("heading", level=2)).to_have_text("gpt_nano-l4-bf16-s0")
    page.keyboard.press("Escape")
    expect(page.locator("#count")).to_have_text("4 of 10 rows selected")
    expect(page.locator("select[name=cost]")).to_have_value("train_flops")
    expect(page.get_by_label("Quality axis")).to_have_value("log")
    expect(page.locator("select[name=colour]")).to_have_value("precision")
    expect(page.get_by_label("Filter")).to_have_value("precision=bf16")
    expect(page.locator("th[aria-sort=descending]")).to_contain_text("throughput")
    assert column(page, "run") == shown
    assert page.locator("#table thead").get_by_role("button", name="perplexity").count() == 0
    page.get_by_role("button", name="Clear selection").click()
    expect(page.locator("#count")).to_have_text("10 rows")


HOSTILE_ADDRESSES = [
    "#quality=nothing&cost=__proto__&colour=constructor&logx=cubic&down=<img src=x onerror=alert(1)>",
    "#sort=<script>alert(1)</script>&show=x&column=nothing&without=slug&compare=x&view=compare&run=nobody",
    "#box-scatter=1 2 3&box-parallel=NaN Infinity 1 1&filter=%E0%A4%A&%",
    "#box-scatter=-1 0 1 2&unknown=1&=&&&",
]


@pytest.mark.parametrize("address", HOSTILE_ADDRESSES)
def test_an_address_with_what_the_page_does_not_know_is_the_page_as_it_begins(open_page, report, address):
    page = open_page(report, address)
    expect(page.locator("select[name=quality]")).to_have_value("loss")
    expect(page.locator("select[name=cost]")).to_have_value("train_seconds")
    assert page.locator("main img, dialog[open]").count() == 0
    assert page.locator("#table tbody tr").count() == (0 if "filter" in address else 10)


OLD_FILTERS = {
    "gpt_nano precision=bf16": 3, "loss<2.8": 4, "state!=done": 2, "n_layers>=4 AND not precision is BF16": 2,
    "tiny in model": 5, "seed in (1, 2)": 2, "layers<3": 5, "GPT_TINY or seed=1": 6, "frontier": 5,
    "2 <= model.n_layers < 4 or loss is not null": 9,
}  # fmt: skip


def test_addresses_of_an_older_version_select_the_same_rows(page):
    for expression, rows in OLD_FILTERS.items():
        page.evaluate("(hash) => { location.hash = hash; }", f"#filter={quote(expression)}")
        expect(page.locator("#count")).to_have_text(f"{rows} of 10 rows selected")


def test_a_filter_of_the_address_is_text(open_page, report):
    markup = "<img src=x onerror=alert(1)>"
    page = open_page(report, f"#filter={markup}")
    expect(page.get_by_label("Filter")).to_have_value(markup)
    assert page.locator("main img").count() == 0


def test_another_address_of_the_same_page_is_another_view_and_back_is_the_first(page):
    page.evaluate("location.hash = '#filter=seed%3D1'")
    expect(page.locator("#count")).to_have_text("2 of 10 rows selected")
    page.go_back()
    expect(page.locator("#count")).to_have_text("10 rows")
    expect(page.get_by_label("Filter")).to_have_value("")


def test_the_details_have_texts_and_every_setting(page):
    shown = open_run(page, "gpt_tiny-l4-bf16-s0")
    facts = shown.locator("dl.facts")
    expect(facts).to_contain_text("gpt_tiny")
    expect(facts).to_contain_text("bf16")
    shown.locator("summary", has_text="settings").click()
    setting = shown.locator(".settings tr", has=page.get_by_role("rowheader", name="data.source", exact=True))
    expect(setting.locator("td")).to_have_text("stdlib")


def test_two_runs_side_by_side_with_the_keyboard(open_page, report, page, ids):
    for name in ("gpt_tiny-l4-bf16-s0", "gpt_nano-l4-bf16-s0"):
        open_run(page, name).get_by_role("button", name="Pick to compare").press("Enter")
        page.keyboard.press("Escape")
        expect(detail(page)).to_be_hidden()
    page.get_by_role("button", name="Compare 2 runs").press("Enter")
    shown = page.locator("#comparison")
    expect(shown).to_be_visible()
    expect(page.locator("#comparison-name")).to_be_focused()
    apart = shown.locator("h3:text('Settings that differ') + div")
    assert set(apart.locator("tbody th").all_text_contents()) == {"model.name", "model.d_model"}
    expect(apart.locator("tbody tr", has_text="model.d_model").locator("td")).to_have_text(["128", "64"])
    expect(shown.locator("details summary")).to_contain_text("with the same value")
    expect(shown.locator("#comparison-curves svg .mark-line path")).to_have_count(4)
    expect(page).to_have_url(re.compile("view=compare$"))
    page.set_viewport_size({"width": 390, "height": 844})
    assert shown.evaluate("node => node.scrollWidth <= 390 && document.documentElement.scrollWidth <= 390")
    page = open_page(report, page.url[page.url.index("#") :], viewport={"width": 390, "height": 844})
    shown = page.locator("#comparison")
    expect(shown).to_be_visible()
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile(f"#compare={ids['gpt_tiny-l4-bf16-s0']}&compare={ids['gpt_nano-l4-bf16-s0']}$"))
    page.get_by_role("button", name="Compare 2 runs").click()
    shown.get_by_role("button", name="Drop gpt_nano-l4-bf16-s0").click()
    expect(shown).to_be_hidden()
