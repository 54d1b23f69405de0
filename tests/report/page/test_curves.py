"""The curves of the page: what is kept of many runs, and what a second costs."""

import pandas as pd
import pytest

from lmexp.analysis.table import load_study
from lmexp.report.page import curves
from lmexp.report.page.curves import page_curves, spread
from tests.report.synthetic import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load_study([write_study(tmp_path_factory.mktemp("outputs"), points=400)])


@pytest.mark.parametrize(("count", "most"), [(5, 10), (10, 10), (11, 10), (1000, 7)])
def test_positions_are_spread_from_the_first_to_the_last(count, most):
    positions = spread(count, most)
    assert len(positions) == len(set(positions)) == min(count, most)
    assert positions[0] == 0 and positions[-1] == count - 1 and positions == sorted(positions)


def test_each_run_has_a_training_and_a_validation_curve_under_one_name(study):
    found, note = page_curves(study)
    finished = [curve for curve in found if curve["run_id"] == study.table["run_id"].iloc[0]]
    assert [curve["kind"] for curve in finished] == ["train", "validation"]
    assert len({len(values) for values in finished[0].values() if isinstance(values, list)}) == 1
    assert len(finished[0]["loss"]) == curves.MAX_RUN_POINTS and note == "Long curves are thinned."
    assert finished[1]["loss"][-1] == pytest.approx(study.table["loss"].iloc[0], rel=1e-5), "the last point stays"


def test_dollars_are_seconds_at_the_price_of_all_processes_and_null_without_a_price(study):
    table = study.table.copy()
    table["dollars_per_hour"] = pd.array([3.6] + [None] * (len(table) - 1), dtype="Float64")
    table.loc[table.index[0], "world_size"] = 2
    from dataclasses import replace

    found, _ = page_curves(replace(study, table=table))
    priced, other = found[0], found[2]
    assert priced["dollars"] == [pytest.approx(0.002 * seconds, rel=1e-4) for seconds in priced["seconds"]]
    assert set(other["dollars"]) == {None}


def test_with_too_many_runs_training_curves_go_first_and_then_whole_runs(study, monkeypatch):
    runs = len(study.runs)
    monkeypatch.setattr(curves, "MAX_POINTS", 2 * curves.MIN_RUN_POINTS * runs - 1)
    found, note = page_curves(study)
    assert {curve["kind"] for curve in found} == {"validation"}
    assert note.endswith("With this many runs, only validation curves are kept.")
    monkeypatch.setattr(curves, "MAX_POINTS", 3 * curves.MIN_RUN_POINTS)
    found, note = page_curves(study)
    assert len(found) <= 3 and note.endswith(f"{runs - 3} runs have no curve here.")
