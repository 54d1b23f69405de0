"""What keyboard and screen reader need: names, roles, order, contrast, a focus that is seen."""

import itertools

import pytest
from playwright.sync_api import expect

CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (colour) => channels(colour).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = light(getComputedStyle(document.documentElement).backgroundColor);
  const low = [];
  for (const node of document.querySelectorAll("main *, dialog *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || node.closest("svg, :disabled, .unseen, script")) continue;
    const ink = light(getComputedStyle(node).color);
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < 4.5) low.push(`${node.tagName} ${node.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return low;
}"""


def test_headings_go_down_by_one_level(page):
    levels = page.evaluate("[...document.querySelectorAll('main :is(h1, h2, h3)')].map((h) => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_every_control_has_a_name_and_every_id_is_one(page):
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, input, select, [role=region], dialog')].filter((node) =>
        !(node.textContent.trim() || node.labels?.length || node.getAttribute('aria-label')
          || document.getElementById(node.getAttribute('aria-labelledby')))).map((node) => node.outerHTML)"""
    )
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")
    assert len(ids) == len(set(ids))
    unlabelled = page.evaluate("[...document.querySelectorAll('select, input')].filter((n) => !n.labels.length).length")
    assert unlabelled == 0


def test_every_chart_says_in_words_what_it_shows(page):
    charts = page.locator("figure.chart svg")
    assert charts.count() == 5
    for chart in charts.all():
        assert "The table of all runs holds the same values." in chart.get_attribute("aria-label")
        assert chart.get_attribute("role")


def test_the_table_says_what_its_cells_are(page):
    assert page.locator("#table thead th:not([scope=col])").count() == 0
    assert page.locator("#table tbody th[scope=row]").count() == 10
    assert page.locator("#table caption").count() == 1
    assert page.locator("#table [aria-sort]").count() == 1


def test_the_focus_goes_from_top_to_bottom_and_is_seen(page):
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    tops, unseen = [], []
    for _ in range(14):
        page.keyboard.press("Tab")
        top, outline = page.evaluate(
            """(() => { const node = document.activeElement;
            return [node.getBoundingClientRect().top + scrollY, getComputedStyle(node).outlineStyle]; })()"""
        )
        tops.append(top)
        if outline == "none":
            unseen.append(page.evaluate("document.activeElement.outerHTML.slice(0, 80)"))
    assert unseen == []
    rounded = [round(top / 40) for top in tops[1:]]  # the bar of the filter sticks to the window
    assert rounded == sorted(rounded)


def test_the_first_link_leads_to_the_table(page):
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#runs")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_background(open_page, report, scheme):
    page = open_page(report, color_scheme=scheme)
    page.locator("#table tbody button").first.click()
    assert page.evaluate(CONTRAST) == []


def test_the_details_keep_the_focus_and_have_a_name(page):
    page.locator("#table tbody button").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert page.evaluate(
        "document.getElementById(document.querySelector('dialog').getAttribute('aria-labelledby')).textContent"
    )
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
