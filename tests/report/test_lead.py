"""The chart that shows the answer: the design that chooses the answer chooses it, and it has the same numbers."""

import html
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lmexp
from lmexp.analysis.answer import Design
from lmexp.analysis.frontier import frontier
from lmexp.analysis.scaling.approaches import approach_2, equal_compute
from lmexp.analysis.scaling.readers import points_of_study
from lmexp.analysis.scaling.words import about_compute
from lmexp.analysis.table import Study, load_study
from lmexp.report.charts.lead import lead_of
from lmexp.report.page.data import page_data
from lmexp.report.said import said_of
from lmexp.report.terminal.study import print_study
from lmexp.study.versus import compare
from lmexp.terminal import Terminal
from lmexp.units import si
from tests.analysis.lawful import best, lawful_study
from tests.report.synthetic import write_study

ONE_ARM = [("gpt", "fp32")]
BUDGETS = [1e13, 2e13, 4e13, 8e13]


@pytest.fixture(scope="module")
def isoflop(tmp_path_factory) -> Study:
    """Six sizes at four amounts of compute, all with the best size inside."""
    return load_study([lawful_study(tmp_path_factory.mktemp("outputs"), arms=ONE_ARM, flops=BUDGETS)])


def spec_of(study: Study) -> dict:
    data = page_data(study, study.default_quality, "train_seconds")
    return data["charts"][data["lead"]["name"]]


def values_of(spec: dict, field: str) -> list[dict]:
    """Return the rows of the chart's own data that have a field."""
    return [row for rows in spec["datasets"].values() for row in rows if field in row]


def test_the_vertices_drawn_are_those_of_approach_2_and_of_the_law(isoflop):
    approach = approach_2(points_of_study(isoflop))
    drawn = values_of(spec_of(isoflop), "label")
    assert [row["params"] for row in drawn] == pytest.approx([p.params for p in approach.parabolas], rel=1e-5)
    assert [row["flops"] for row in drawn] == pytest.approx(BUDGETS, rel=1e-3)
    for row in drawn:
        assert row["low"] <= best(row["flops"])[0] <= row["high"], "the size that is known to be best"


def test_the_best_size_by_a_law_is_held_against_the_parabola(isoflop):
    vertex, by_law, *_ = said_of(isoflop).answer
    law, largest = said_of(isoflop).basis.law, said_of(isoflop).basis.budgets[-1]
    row = next(row for row in law.best if row.by == law.trusted.law.name)
    assert vertex.startswith(f"At 80T FLOPs the best size is {si(largest.parabola.params)} (")
    assert by_law.startswith(f"By {row.by}, fitted to all runs, it is {si(float(row.params.value))} (")
    assert by_law.endswith(": the two agree within their intervals.")

    far = replace(largest.parabola, coefficients=largest.parabola.coefficients, interval=(1.0, 1.01), params=1.005)
    apart = about_compute(law, replace(largest, parabola=far))
    assert apart[1].endswith(": they differ by more than their intervals allow.")


def test_runs_of_one_budget_cost_the_same_and_only_the_best_of_them_is_on_the_frontier(tmp_path):
    study = load_study([lawful_study(tmp_path, arms=ONE_ARM, flops=BUDGETS)])
    table = study.table
    table["train_flops"] *= 1 - 1e-9 * table["n_params"]  # whole steps: a larger model spends a little less
    assert study.default_cost == "budget.flops" and frontier(table, "loss", "train_flops").sum() > len(BUDGETS)
    marks = frontier(table, "loss", study.default_cost)
    assert sorted(table.loc[marks, "budget.flops"]) == BUDGETS
    assert table.loc[marks, "loss"].tolist() == pytest.approx(
        sorted(table.groupby("budget.flops")["loss"].min(), reverse=True)
    )


def test_a_budget_with_too_few_sizes_has_no_vertex_but_its_runs(tmp_path):
    study = load_study([lawful_study(tmp_path, arms=ONE_ARM, widths=(32, 64, 96, 160), flops=BUDGETS[:2])])
    said = said_of(study)
    assert said.basis.design is Design.ISOFLOP
    assert [budget.parabola for budget in equal_compute(said.basis.points)] == [None, None]
    spec = spec_of(study)
    assert not values_of(spec, "label") and len(values_of(spec, "run_id")) == 8
    largest = study.table[study.table["budget.flops"] == BUDGETS[1]]
    lowest = si(float(largest.loc[largest["loss"].astype(float).idxmin(), "n_params"]))
    assert f"At 20T FLOPs the lowest loss is that of {lowest} parameters" in said.answer[0]


def test_the_prediction_drawn_is_the_one_of_the_sentence(tmp_path):
    study = load_study([lawful_study(tmp_path, arms=ONE_ARM)])
    law = said_of(study).basis.law
    (row,) = values_of(spec_of(study), "label")
    (wanted,) = [each for each in law.best if each.by == law.trusted.law.name and each.beyond == pytest.approx(10)]
    assert [row["loss"], row["low"], row["high"]] == pytest.approx([float(part) for part in wanted.loss], rel=1e-5)
    assert any(row["label"].removeprefix("10x the compute: ") in sentence for sentence in said_of(study).first)


def test_the_speedups_drawn_are_those_of_versus(tmp_path):
    tokens = [1e6 * 3**n for n in range(6)]
    study = load_study([lawful_study(tmp_path, widths=(64,), tokens=tokens, worse=0.2)])
    (arm,) = compare([tmp_path / "lawful"], arms=["precision"], costs=["flops"]).result.arms
    (row,) = [row for row in values_of(spec_of(study), "overall") if row["overall"]]
    assert row["speedup"] == pytest.approx(arm.costs["flops"].overall.value, rel=1e-5)
    assert any(sentence.startswith("For equal quality") for sentence in said_of(study).first)


def test_each_design_has_its_chart(isoflop, tmp_path):
    demo = load_study([write_study(tmp_path)])
    assert said_of(demo).basis.design is Design.EFFECTS
    one_run = demo.of_rows(demo.table["run_id"].eq(demo.table["run_id"].iloc[0]).to_numpy(dtype=bool))
    one_run = replace(one_run, axes={})
    wanted = [
        (isoflop, "isoflop"),
        (demo, "effects"),
        (replace(demo, objectives=("loss",)), "trials"),
        (replace(demo, objectives=("loss", "train_seconds")), "scatter"),
        (one_run, "curves"),
    ]
    drawn = ("scatter", "effects", "curves")
    for study, name in wanted:
        lead = lead_of(study, said_of(study), "loss", drawn)
        assert lead is not None and lead.name == name
    assert lead_of(one_run, said_of(one_run), "loss", ()) is None


def test_the_terminal_the_page_and_python_have_the_answer_first_and_then_what_is_not_known_of_noise(tmp_path: Path):
    folder = write_study(tmp_path)
    said = said_of(load_study([folder]))
    best, effect, unknown = said.first
    assert best.startswith("gpt_tiny-l4-fp32-s0 has the lowest loss")
    assert unknown.startswith("No cell has two finished seeds")

    report = lmexp.report(folder)
    printed = io.StringIO()
    print_study(report.view, Terminal(file=printed, width=1000))
    page = report.page.read_text(encoding="utf-8")
    for shown in ("\n".join(report.answer), printed.getvalue(), page[page.index("<body") :]):
        places = [shown.index(html.escape(sentence.split(";")[0])) for sentence in (best, effect, unknown)]
        assert places == sorted(places)


def test_each_part_of_a_study_that_cannot_be_ranked_together_has_a_sentence(tmp_path: Path):
    demo = load_study([write_study(tmp_path)])
    table = demo.table.copy()
    table["task"] = np.where(table["model"] == "gpt_tiny", "masked_lm", "causal_lm")
    said = said_of(replace(demo, table=table))
    assert [sentence.split(":")[0] for sentence in said.first] == ["causal_lm", "masked_lm"]
    assert all("has the lowest loss" in sentence for sentence in said.first)
