"""One Chromium for all tests of the page, and a page that must have said and asked for nothing."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from lmexp.analysis.table import load_study
from lmexp.report.page.html import write_report
from tests.browser.reading import HOSTILE, ready
from tests.report.synthetic import write_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if CHROMIUM is None:
                item.add_marker(pytest.mark.skip(reason="no chromium on this machine"))


@pytest.fixture(scope="session")
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
def open_page(browser):
    """Opens a file; at the end, every page must have said and asked for nothing but itself."""
    opened = []

    def open_file(file: Path, fragment: str = "", **options):
        said, asked = [], []
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        opened.append((page, file, said, asked))
        page.goto(file.as_uri() + fragment)
        return ready(page)

    yield open_file
    for page, file, said, asked in opened:
        page.close()
        assert said == []
        assert {address.partition("#")[0] for address in asked} == {file.as_uri()} and len(asked) == 1


@pytest.fixture
def page(open_page, report):
    return open_page(report)
