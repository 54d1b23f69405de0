"""What the browser does to show a report of 10,000 runs: main-thread time of headless Chromium, step by step.

The time is Chromium's own count of what its main thread spent on tasks (`TaskDuration`), layout and painting included:
python benchmarks/page.py [RECORDS | FILE.html]
"""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from report import RECORDS, write_study

from lmexp.analysis.table import load_study
from lmexp.report.page.html import write_report

CHARTS = ("scatter", "parallel", "effects", "heat")  # the study has no curves


class Clock:
    """Prints the main thread's seconds between one step and the next."""

    def __init__(self, page: Page) -> None:
        self.session = page.context.new_cdp_session(page)
        self.session.send("Performance.enable")
        self.last = self._now()

    def told(self, what: str) -> None:
        """Print what a step took, and begin the next."""
        now = self._now()
        print(f"{what:<48} {now - self.last:6.2f} s", flush=True)
        self.last = self._now()

    def _now(self) -> float:
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


def walk(page: Page, clock: Clock, verb: str) -> None:
    """Scroll to each chart and wait until it shows the selection."""
    for chart in CHARTS:
        page.evaluate("name => document.getElementById(name).scrollIntoView({ block: 'end' })", chart)
        page.wait_for_timeout(200)
        page.evaluate("settle()")
        clock.told(f"{verb}: {chart}")


def main() -> None:
    """Measure each step."""
    given = sys.argv[1] if len(sys.argv) > 1 else str(RECORDS)
    with tempfile.TemporaryDirectory() as root, sync_playwright() as playwright:
        file = Path(given).resolve()
        if given.isdigit():
            folder = Path(root) / "big"
            write_study(folder, int(given))
            file = write_report(load_study([folder]), folder)
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        clock = Clock(page)
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]", timeout=120_000, state="attached")
        clock.told("open: what is in sight")
        walk(page, clock, "scroll to")
        page.evaluate("scrollTo(0, 0)")
        page.get_by_label("Filter").fill("precision=bf16 n_layers>=4")
        page.wait_for_timeout(400)
        page.evaluate("settle()")
        clock.told("filter: the table and what is in sight")
        walk(page, clock, "after the filter, scroll to")
        chromium.close()


if __name__ == "__main__":
    main()
