"""How the tests read the page."""

from playwright.sync_api import Page

HOSTILE = "<script>alert(1)</script>"
MARKS = "#scatter svg .mark-symbol.role-mark path"
FILLED = MARKS + ':not([fill="transparent"])'


def ready(page: Page) -> Page:
    """Wait until all charts are drawn."""
    page.wait_for_selector("html[data-ready]", timeout=60_000, state="attached")
    return page


def texts(page: Page, chart: str) -> list[str]:
    return page.locator(f"#{chart} svg text").all_text_contents()


def column(page: Page, heading: str) -> list[str]:
    headings = page.locator("#table thead th button").all_text_contents()
    at = headings.index(heading) + 1
    return page.locator(f"#table tbody tr > :nth-child({at})").all_text_contents()


def heading(page: Page, name: str):
    return page.locator("#table thead").get_by_role("button", name=name, exact=True)


def drag(page: Page, chart: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag the mouse over a chart, from one place to another as shares of its plot's width and height."""
    page.locator(f"#{chart}").scroll_into_view_if_needed()
    plot = page.locator(f"#{chart} svg .mark-group.role-frame path.background").first
    box = plot.evaluate("node => { const b = node.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; }")
    x, y, width, height = box
    page.mouse.move(x + start[0] * width, y + start[1] * height)
    page.mouse.down()
    page.mouse.move(x + (start[0] + end[0]) / 2 * width, y + (start[1] + end[1]) / 2 * height, steps=4)
    page.mouse.move(x + end[0] * width, y + end[1] * height, steps=4)
    page.mouse.up()
