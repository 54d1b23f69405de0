"""`report --serve` while a sweep runs: a real process, a real browser, a record that arrives."""

import json
import os
import signal
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from lmexp.files import read_json, write_json
from lmexp.runs.directory import RunDir
from tests.browser.reading import column, ready
from tests.report.synthetic import write_study


@pytest.fixture
def served(tmp_path):
    folder = write_study(tmp_path)
    command = [sys.executable, "-m", "lmexp.cli", "report", "demo", "--serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--output-dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    address = process.stdout.readline().split()[1]
    yield folder, address, process
    process.kill()
    process.communicate()


def test_the_page_follows_the_records_and_keeps_the_readers_choices(browser, served):
    folder, address, process = served
    page = browser.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    ready(page)
    page.locator("select[name=cost]").select_option("train_flops")
    page.get_by_label("Filter").fill("gpt_nano")
    expect(page.locator("#count")).to_have_text("5 of 10 rows selected")
    page.locator("#table thead").get_by_role("button", name="training time", exact=True).click()

    run = RunDir(next(folder.glob("gpt_nano-l2-bf16-s1*")))
    donor = read_json(next(folder.glob("gpt_nano-l2-bf16-s0*")) / "record.json")
    row = donor["rows"][0] | {"loss": 1.5, "train_seconds": 0.5, "seed": 1, "slug": "the-new-run"}
    write_json(run.path / "record.json", donor | {"rows": [row | {"run_id": run.read_config().run.id}]})
    run.update_state(state="done", reason=None)

    expect(page.locator("#more-findings")).to_contain_text("1 of 10 runs did not finish", timeout=60_000)
    expect(page.locator("#table tbody tr").first).to_contain_text("the-new-run")
    assert column(page, "training time")[0] == "0.50"
    expect(page.locator("#count")).to_have_text("5 of 10 rows selected")
    expect(page.get_by_label("Filter")).to_have_value("gpt_nano")
    expect(page.locator("select[name=cost]")).to_have_value("train_flops")
    expect(page.locator("#scatter svg")).to_contain_text("training compute (FLOPs)")
    assert said == []
    assert {url.removeprefix(address) for url in asked} == {"", "version"}

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0 and err == ""
    expect(page.locator("#live")).to_contain_text("the server is gone", timeout=30_000)
    page.close()


def test_serve_and_json_do_not_go_together(tmp_path):
    write_study(tmp_path)
    command = [sys.executable, "-m", "lmexp.cli", "report", "demo", "--serve", "--json", "--output-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "--serve shows a page" in done.stderr and done.stdout == ""


def test_charts_are_written_beside_the_report(tmp_path):
    folder = write_study(tmp_path)
    command = [sys.executable, "-m", "lmexp.cli", "report", "demo", "--charts", "svg", "--json"]
    done = subprocess.run([*command, "--output-dir", str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout)["charts"] == [str(file) for file in (folder / "charts" / n for n in ORDER)]


ORDER = ("scatter.svg", "curves.svg", "parallel.svg", "effects.svg", "heat.svg")
