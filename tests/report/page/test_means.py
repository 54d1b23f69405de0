"""The means over seeds that the page shows are those of the table of groups, and its defaults follow the effects."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lmexp.analysis.columns import value_text
from lmexp.analysis.table import Study
from lmexp.report.charts.base import log_ticks, ticks_of
from lmexp.report.options import ViewOptions
from lmexp.report.page.data import page_data
from lmexp.report.page.means import _mean_curve
from lmexp.report.view import StudyView
from tests.analysis.effects.test_ties import study_of as study_of_arms
from tests.analysis.test_groups import study_of


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """Two models in two precisions, three seeds each; one seed was slowed down by other work."""
    root = tmp_path_factory.mktemp("outputs")
    return study_of(root, jitter=0.004, exclusive=lambda seed: seed != 1, wall_seconds=lambda seed: 5 + 0.5 * seed**2)


@pytest.mark.parametrize("name", ["loss", "accuracy", "wall_seconds"])
def test_a_mean_and_its_interval_are_those_of_pandas_and_scipy(study: Study, name: str):
    means = page_data(study, "loss", "wall_seconds")["means"]
    for at, members in enumerate(means["members"]):
        values = study.table[name].iloc[members].astype(float)
        low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        assert means["rows"][name][at] == pytest.approx(values.mean(), rel=1e-7)
        assert means["half"][name][at] == pytest.approx((high - low) / 2, rel=1e-6)


def test_the_settings_are_the_groups_of_the_terminal_with_the_same_frontier(study: Study):
    means = page_data(study, "loss", "train_flops")["means"]
    groups = StudyView.of(study, ViewOptions(cost=("train_flops",))).groups
    assert groups is not None
    on_page = pd.DataFrame({name: means["rows"][name] for name in ("model", "precision", "loss", "n", "frontier")})
    same = groups.merge(on_page, on=["model", "precision"], suffixes=("", "_page"))
    assert len(same) == len(groups) == 4 and (same["frontier"] == same["frontier_page"]).all()
    assert np.allclose(same["loss"], same["loss_page"], rtol=1e-7) and (same["n"] == same["n_page"]).all()
    assert 0 < sum(means["rows"]["frontier"]) < 4


def test_a_lucky_seed_is_not_on_the_frontier_of_means():
    lucky = {"small": (1.0, [3.0, 3.0, 3.0]), "large": (2.0, [2.9, 3.3, 3.3])}
    data = page_data(study_of_arms(lucky), "loss", "train_seconds")
    assert data["rows"]["frontier"] == [True, True, True, True, False, False]
    assert dict(zip(data["means"]["rows"]["slug"], data["means"]["rows"]["frontier"], strict=True)) == {
        "small": True,
        "large": False,
    }


def test_runs_on_two_devices_are_never_averaged(study: Study):
    table = study.table.copy()
    table.loc[table["seed"] == 0, "device_name"] = "another"
    means = page_data(replace(study, table=table), "loss", "train_seconds")["means"]
    assert sorted(map(len, means["members"])) == [1] * 4 + [2] * 4
    assert all(len(set(table["device_name"].iloc[members])) == 1 for members in means["members"])


def test_without_repeated_seeds_there_are_no_means():
    data = page_data(study_of_arms({"a": (1.0, [3.0]), "b": (2.0, [2.9])}), "loss", "train_seconds")
    assert data["means"] is None


def test_what_was_measured_beside_other_work_is_marked_in_runs_and_in_means(study: Study):
    data = page_data(study, "loss", "train_seconds")
    assert data["rows"]["shared"] == [seed == 1 for seed in data["rows"]["seed"]]
    assert all(data["means"]["rows"]["shared"])
    bound = {column["name"] for column in data["columns"] if column.get("device_bound")}
    assert "train_seconds" in bound and not {"loss", "train_flops"} & bound


def test_a_mean_curve_has_the_tokens_that_all_runs_have():
    curves = [
        {"tokens": tokens, "loss": loss, **{name: [1.0] * len(loss) for name in ("flops", "seconds", "dollars")}}
        for tokens, loss in (([1, 2, 3], [4.0, 3.0, 2.0]), ([1, 3], [5.0, 4.0]))
    ]
    mean = _mean_curve(curves, 6)
    half = stats.t.ppf(0.975, 1) * np.std([4, 5], ddof=1) / 2**0.5
    assert mean["tokens"] == [1, 3] and mean["loss"] == [4.5, 3.0]
    assert mean["half"][0] == pytest.approx(half, rel=1e-5)


def test_colours_and_the_heat_map_begin_with_the_largest_effect_and_the_seed_comes_last(study: Study):
    shuffled = replace(study, axes=dict(sorted(study.axes.items(), reverse=True)))  # seed, precision, model
    choices = page_data(shuffled, "loss", "train_seconds")["choices"]
    assert [name for name, _ in choices["colour"]["options"]] == ["model", "precision", "seed", "none"]
    assert (choices["down"]["value"], choices["across"]["value"]) == ("model", "precision")


@pytest.mark.parametrize(
    ("value", "text"),
    [(5e9, "5G"), (4e10, "40G"), (100_000, "100k"), (1_600_000, "1.6M"), (65536, "65536"), (1024, "1024"),
     (0.001, "0.001"), (1e-5, "1e-5"), (3.0, "3"), ("bf16", "bf16"), (True, "true"), (None, "null"),
     (1048576, "1.049M")],
)  # fmt: skip
def test_the_value_of_an_axis_is_written_as_people_do(value, text):
    assert value_text(value) == text


def test_ticks_of_a_logarithmic_axis_are_1_2_5_times_powers_of_ten():
    assert log_ticks(0.9, 60.0) == [1, 2, 5, 10, 20, 50]
    assert log_ticks(1.0, 1e6) == [10.0**power for power in range(7)]
    assert log_ticks(2.1, 2.9) == [2.2, 2.4, 2.6, 2.8]


@pytest.mark.parametrize("ends", [(39.4e9, 39.9e9), (112_000, 143_000), (3.1, 3.2), (0.5, 0.5), (1e3, 1e9)])
def test_a_logarithmic_axis_has_ticks_however_close_its_values_are(ends):
    low, high = ends
    margin = max((high / low) ** 0.06, 1.05 if low == high else 1)
    ticks = ticks_of([low, high])
    assert len(ticks) >= 2
    assert all(low / margin * 0.999 <= tick <= high * margin * 1.001 for tick in ticks)


@pytest.mark.parametrize(
    "ends", [(1e-320, 1e-3), (5e-324, 5e-324), (1e-200, 1e200), (1.0, 1.7e308), (1.7e308, 1.7e308)]
)
def test_a_logarithmic_axis_bears_every_number_that_a_config_can_hold(ends):
    assert np.isfinite(ticks_of(ends)).all()
