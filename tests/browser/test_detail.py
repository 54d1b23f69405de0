"""The details of one run: from the table, from a mark, from a link; with the keyboard."""

import re
import shlex

import pytest
from playwright.sync_api import expect

from lmexp.analysis.table import load_study
from lmexp.report.page.html import write_report
from lmexp.runs.predictions import write_predictions
from lmexp.runs.scores import add_scores
from tests.browser.reading import HOSTILE, MARKS
from tests.report.synthetic import write_study


def detail(page):
    return page.locator("#detail")


def open_run(page, name):
    page.locator("#table tbody").get_by_role("button", name=name, exact=True).click()
    return detail(page)


def test_a_row_opens_its_run_with_config_curve_log_and_command(page):
    shown = open_run(page, "gpt_tiny-l4-bf16-s0")
    expect(shown.get_by_role("heading", level=2)).to_have_text("gpt_tiny-l4-bf16-s0")
    expect(shown).to_contain_text("precision.compute")
    assert shown.locator("tbody tr").count() == 3  # against the best run, which has fp32
    expect(shown.locator("#detail-curve svg .mark-line path").first).to_be_visible()
    expect(shown).to_contain_text("It printed nothing.")
    command = shown.locator("pre.command").text_content()
    assert shlex.split(command)[-3:-1] == ["-m", "lmexp.worker"]


def test_what_a_run_answered_is_shown_as_text(open_page, tmp_path):
    folder = write_study(tmp_path)
    study = load_study([folder])
    run = next(iter(study.runs.values()))
    details = {"labels": ["no", HOSTILE], "confusion": [[1234, 1], [0, 2]]}
    details["spans"] = {"PER": {"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "spans": 1, "guessed": 2}}
    add_scores(run, "causal_lm", {}, details)
    write_predictions(run, iter([{"input": HOSTILE, "gold": "no", "guess": HOSTILE, "scores": {}}]))
    page = open_page(write_report(load_study([folder]), folder))
    shown = open_run(page, str(study.table.set_index("run_id")["slug"][run.read_record()[-1]["run_id"]]))
    expect(shown.get_by_role("cell", name="1,234")).to_be_visible()
    expect(shown.get_by_role("heading", level=3)).to_contain_text(
        ["Config", "Labels, and what was guessed for them", "Types of spans", "Examples, wrong ones first", "Curve"]
    )
    expect(shown.get_by_role("rowheader", name=HOSTILE).first).to_be_visible()
    expect(shown).to_contain_text("0.667")


def test_the_baseline_can_be_chosen(page):
    shown = open_run(page, "gpt_tiny-l4-bf16-s0")
    shown.get_by_label("Baseline").select_option(label="gpt_tiny-l2-bf16-s0")
    expect(shown.locator("tbody th")).to_have_text(["model.n_layers"])
    expect(shown.locator("tbody td")).to_have_text(["4", "2"])


def test_previous_and_next_follow_the_table(page):
    shown = open_run(page, "gpt_tiny-l4-bf16-s0")
    expect(shown.locator("#place")).to_have_text("2 of 10")
    shown.get_by_role("button", name="Next").click()
    expect(shown.get_by_role("heading", level=2)).to_have_text("gpt_tiny-l2-fp32-s0")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(shown.get_by_role("heading", level=2)).to_have_text(HOSTILE)
    expect(shown.get_by_role("button", name="Previous")).to_be_disabled()


def test_enter_opens_escape_closes_and_the_focus_comes_back(page):
    name = page.locator("#table tbody").get_by_role("button", name="gpt_nano-l4-fp32-s0")
    name.focus()
    page.keyboard.press("Enter")
    expect(detail(page)).to_be_visible()
    expect(page.locator("#detail-name")).to_be_focused()
    page.keyboard.press("Escape")
    expect(detail(page)).to_be_hidden()
    expect(name).to_be_focused()


def test_a_mark_opens_its_run(page):
    mark = page.locator(MARKS + '[aria-label="gpt_nano-l2-fp32-s0"]')
    mark.scroll_into_view_if_needed()
    mark.click()
    expect(detail(page).get_by_role("heading", level=2)).to_have_text("gpt_nano-l2-fp32-s0")


def test_a_link_opens_its_run_and_the_address_follows(open_page, report):
    study = load_study([report.parent])
    ids = dict(zip(study.table["slug"], study.table["run_id"], strict=True))
    page = open_page(report, f"#run={ids['gpt_nano-l2-bf16-s0']}")
    expect(detail(page).get_by_role("heading", level=2)).to_have_text("gpt_nano-l2-bf16-s0")
    detail(page).get_by_role("button", name="Previous").click()
    expect(page).to_have_url(re.compile(f"#run={ids['gpt_nano-l2-fp32-s0']}$"))
    detail(page).get_by_role("button", name="Close").click()
    expect(page).to_have_url(re.compile("^[^#]*$"))  # a browser says that a dialog has closed only some time after


def test_a_failed_run_says_why(page):
    shown = open_run(page, "gpt_tiny-l4-bf16-s1")
    expect(shown).to_contain_text("diverged: the loss was NaN at step 40")


@pytest.fixture
def hostile_report(tmp_path):
    folder = write_study(tmp_path, slug=HOSTILE)
    for run in folder.glob("gpt*"):
        (run / "log.txt").write_text(f"{HOSTILE}\n<img src=x onerror=alert(1)> 损失 2.5\n")
        config = run / "config.yaml"
        config.write_text(config.read_text().replace("source: stdlib", f"source: '{HOSTILE}{run.name}'"))
    return write_report(load_study([folder]), folder)


def test_hostile_logs_and_configs_stay_text(open_page, hostile_report):
    page = open_page(hostile_report)
    shown = open_run(page, HOSTILE)
    expect(shown.get_by_label("End of the log")).to_contain_text(f"{HOSTILE}\n<img src=x onerror=alert(1)> 损失 2.5")
    shown.get_by_role("button", name="Next").click()
    expect(shown).to_contain_text(f"{HOSTILE}gpt_tiny-l4-bf16-s0")
    assert shown.locator("script, img").count() == 0
