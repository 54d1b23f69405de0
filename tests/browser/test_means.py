"""Means over seeds on the page: the switch, the bars, the frontier, the marks, and what a selection does to them."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from lmexp.report.options import ViewOptions
from lmexp.report.page.curves import page_curves
from lmexp.report.page.data import page_data
from lmexp.report.page.html import write_report
from lmexp.report.view import StudyView
from tests.analysis.test_findings import study_of as of_runs
from tests.analysis.test_groups import study_of
from tests.browser.reading import FILLED, MARKS, column
from tests.browser.test_detail import open_run
from tests.report.synthetic import write_curve

BARS = "#scatter svg .mark-rule.role-mark line"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("outputs")
    study = study_of(root, jitter=0.004, exclusive=lambda seed: seed != 1, wall_seconds=lambda seed: 5 + seed / 2)
    for run_id, run in study.runs.items():
        row = study.table.set_index("run_id").loc[run_id]
        write_curve(run, float(row["loss"]), 1e12, float(row["wall_seconds"]))
    return study


@pytest.fixture
def page(open_page, study, tmp_path):
    return open_page(write_report(study, tmp_path))


def means_in_table(page) -> dict[str, str]:
    return dict(zip(column(page, "run"), column(page, "loss"), strict=True))


def means_in_python(study, **options) -> dict[str, str]:
    groups = StudyView.of(study, ViewOptions(**options)).groups
    return {
        f"{row['model']}, {row['precision']}": f"{row['loss']:.4f} ± {row['loss_ci95']:.4f}"
        for _, row in groups.iterrows()
    }


def test_the_table_has_the_means_of_the_terminal_and_on_demand_the_runs(page, study):
    assert means_in_table(page) == means_in_python(study)
    assert column(page, "runs") == ["3"] * 4
    page.get_by_label("Show", exact=True).select_option("runs")
    expect(page.locator("#table tbody tr")).to_have_count(12)
    expect(page.locator(MARKS)).to_have_count(12)
    expect(page.locator(BARS)).to_have_count(0)


def test_a_selection_of_some_seeds_has_the_means_that_python_has_for_them(page, study):
    page.get_by_label("Filter").fill("seed < 2")
    expect(page.locator("#count")).to_have_text("4 of 4 settings selected; means over the selected runs")
    assert means_in_table(page) == means_in_python(study, where="seed < 2")
    page.get_by_label("Filter").fill("")
    expect(page.locator("#count")).to_have_text("4 settings, 12 runs")
    assert means_in_table(page) == means_in_python(study)


def test_the_mean_curves_of_some_seeds_are_means_over_these(page, study):
    first = "views.curves.data('curves').find((curve) => curve.kind === 'validation').loss[0]"
    before = page.evaluate(first)
    page.get_by_label("Filter").fill("seed < 2")
    page.wait_for_function(f"before => {first} !== before", arg=before)
    of_run = {curve["run_id"]: curve for curve in page_curves(study)[0] if curve["kind"] == "validation"}
    means = page_data(study, "loss", "train_seconds")["means"]
    drawn = [curve for curve in page.evaluate("views.curves.data('curves')") if curve["kind"] == "validation"]
    assert len(drawn) == 4
    for curve in drawn:
        members = study.table.iloc[means["members"][means["rows"]["run_id"].index(curve["run_id"])]]
        runs = [of_run[run] for run in members["run_id"][members["seed"] < 2]]
        for name in ("loss", "seconds"):
            assert np.allclose(curve[name], np.mean([run[name] for run in runs], axis=0), rtol=1e-6)


def test_in_the_heat_map_a_setting_with_more_seeds_has_no_more_weight(open_page, tmp_path):
    loss = {"gpt_nano": 3.0, "gpt_tiny": 2.0}
    runs = [
        ({"model": model, "precision": precision, "optim.lr": lr, "seed": seed}, loss[model] + extra + 0.02 * seed, 1.0)
        for model in loss
        for precision in ("fp32", "bf16")
        for lr, extra in ((0.001, 0.0), (0.002, 0.1))
        for seed in range(4 if (model, precision, lr) == ("gpt_nano", "fp32", 0.001) else 1)
    ]
    axes = {"model": list(loss), "precision": ["fp32", "bf16"], "optim.lr": [0.001, 0.002], "seed": [0, 1, 2, 3]}
    study = of_runs(tmp_path, runs, axes)
    page = open_page(write_report(study, tmp_path))
    page.get_by_label("Down", exact=True).select_option("model")
    page.get_by_label("Across", exact=True).select_option("precision")
    expect(page.locator("#heat svg")).to_contain_text("3.0650", timeout=30_000)  # (3.03 + 3.1)/2
    page.get_by_label("Show", exact=True).select_option("runs")
    expect(page.locator("#heat svg")).to_contain_text("3.0440", timeout=30_000)  # (3 + 3.02 + 3.04 + 3.06 + 3.1)/5
    page.get_by_label("Show", exact=True).select_option("means")
    page.get_by_label("Across", exact=True).select_option("seed")
    expect(page.locator("#heat svg .mark-rect.role-mark path")).to_have_count(5, timeout=30_000)


def test_the_scatter_has_a_bar_for_each_mean_and_the_frontier_of_the_table(page):
    expect(page.locator(MARKS)).to_have_count(4)
    expect(page.locator(BARS)).to_have_count(4)  # the training time is the same for all seeds
    expect(page.locator(FILLED)).to_have_count(column(page, "●").count("●"))
    page.get_by_label("Cost", exact=True).select_option("wall_seconds")
    expect(page.locator(BARS)).to_have_count(8)
    expect(page.locator(FILLED)).to_have_count(column(page, "●").count("●"))
    expect(page.locator("#table-notes")).to_contain_text("on the frontier of loss and wall time, by the means")


def test_a_setting_opens_its_runs_and_a_run_its_details(page):
    page.get_by_role("button", name="gpt_tiny, fp32").click()
    expect(page.locator("#table tbody tr")).to_have_count(7)
    expect(page.get_by_role("button", name="gpt_tiny, fp32")).to_have_attribute("aria-expanded", "true")
    page.locator("#table tr.member button").first.click()
    expect(page.locator("#detail")).to_be_visible()


def test_a_time_that_was_measured_beside_other_work_has_its_mark(page):
    assert all(re.match(r"~\d", text) for text in column(page, "training time"))
    page.get_by_label("Show", exact=True).select_option("runs")
    expect(page.locator("#table tbody tr")).to_have_count(12)
    seeds, times = column(page, "seed"), column(page, "training time")
    assert [time.startswith("~") for time in times] == [seed == "1" for seed in seeds]
    expect(page.locator("#table-notes")).to_contain_text("~ measured while other work was on the device.")
    for name, seed in zip(column(page, "run"), seeds, strict=True):
        shown = open_run(page, name)
        mark = "~" if seed == "1" else ""
        expect(shown.locator("dt:text-is('training time') + dd")).to_have_text(re.compile(rf"^{mark}\d"))
        page.keyboard.press("Escape")


def test_hovering_names_the_setting_and_its_intervals(page):
    page.locator(MARKS).first.hover()
    expect(page.locator("#vg-tooltip-element")).to_contain_text("mean of")
    expect(page.locator("#vg-tooltip-element")).to_contain_text(" ± ")
