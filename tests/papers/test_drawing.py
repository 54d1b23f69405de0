"""Figures of papers: our points, what is fitted to them, published curves on other scales, and the sentences below."""

import json

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from lmexp.errors import UserError
from lmexp.papers.drawing import Drawing, draw
from lmexp.papers.evidence import Evidence
from lmexp.papers.figure import Figure
from lmexp.report.charts.figure import figure_chart
from lmexp.report.figure_words import sentences_of

NOTHING = Evidence(pd.DataFrame(), (), "no rows")


@pytest.fixture
def evidence() -> Evidence:
    """Return losses 4 x^-0.1, times 1.1 for the arm b, of three seeds that are 1 % apart."""
    rows = [
        {"tokens": tokens, "seed": seed, "arm": arm, "loss": level * tokens**-0.1 * (1 + 0.01 * seed)}
        for arm, level in (("a", 4.0), ("b", 4.4))
        for tokens in (1e5, 2e5, 4e5, 8e5)
        for seed in (-1, 0, 1)
    ]
    return Evidence(pd.DataFrame(rows), ("arm", "tokens", "seed"), "a study")


def drawn(evidence: Evidence, **settings: object) -> Drawing:
    return draw(Figure(**{"title": "A figure", "x": "tokens", "y": "loss", "log": ["x", "y"], **settings}), evidence)


def test_points_are_means_over_seeds_with_their_range_and_a_fitted_line_has_the_exponent(evidence: Evidence):
    drawing = drawn(evidence, by="arm", fit="line")
    assert [one.name for one in drawing.series] == ["a", "b"]
    ours = drawing.series[1]
    np.testing.assert_allclose(ours.y, 4.4 * ours.x**-0.1)
    np.testing.assert_allclose([ours.low, ours.high], [0.99 * ours.y, 1.01 * ours.y])
    assert (ours.seeds == 3).all() and len(ours.x) == 4
    for fit in drawing.fits:
        assert fit.slope == pytest.approx((-0.1, -0.1, -0.1), abs=1e-6)
    first, *_, last = sentences_of(drawing)
    assert "Each of the 8 points is the mean of 3 seeds, with a bar from the lowest seed to the highest." in first
    assert "the exponent -0.1" in last
    one = drawn(evidence, where="arm == 'a' and seed == 0")
    assert len(one.our_x) == 4 and sentences_of(one)[0].startswith(
        "Each of the 4 points is one row. The lowest loss is"
    )


def test_seeds_are_averaged_whatever_tokens_each_trained_on_unless_tokens_tell_milestones_apart():
    """With a budget of seconds, each seed trains on its own number of tokens."""
    rows = [
        {"run_id": f"{width}-{seed}", "width": width, "seed": seed, "tokens": 1000 + seed, "loss": 3 + 0.1 * seed}
        for width in (32, 64)
        for seed in (0, 1, 2)
    ]
    ends = Evidence(pd.DataFrame(rows), ("width", "seed"), "a study")
    (ours,) = drawn(ends, x="width").series
    assert ours.seeds.tolist() == [3, 3] and ours.y == pytest.approx([3.1, 3.1])
    (ours,) = drawn(Evidence(ends.table, ("seed",), "a study"), x="run_id == ''", log=[]).series
    assert ours.seeds.tolist() == [6], "nothing but the seed tells them apart"
    table = pd.DataFrame([row | {"tokens": part * 500} for row in rows for part in (1, 2)])
    (ours,) = drawn(Evidence(table, ("width", "seed"), "a study"), where="width == 32").series
    assert ours.seeds.tolist() == [3, 3] and ours.x.tolist() == [500, 1000]


def test_a_parabola_has_its_lowest_point_where_it_is():
    x = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    table = pd.DataFrame({"lr": x, "loss": 3 + np.log(x / 3) ** 2})
    drawing = drawn(Evidence(table, (), "points"), x="lr", log=["x"], fit="parabola")
    (fit,) = drawing.fits
    assert fit.lowest == pytest.approx(3.0)
    assert "its lowest point at lr = 3." in sentences_of(drawing)[-1] and drawing.y_range[0] < 3


def test_a_published_curve_widens_the_axes_only_as_long_as_our_points_stay_visible(evidence: Evidence):
    plain = drawn(evidence)
    near = drawn(evidence, curves=[{"label": "near", "points": [[1e5, 1.2], [2e6, 0.9]]}])
    assert near.x_range[1] > 2e6 > plain.x_range[1] and near.published[0].is_inside
    for far in ([[1e18, 3.0], [1e24, 2.0]], [[1e5, 300.0], [8e5, 200.0]]):
        apart = drawn(evidence, curves=[{"label": "far", "points": far}])
        assert (apart.x_range, apart.y_range) == (plain.x_range, plain.y_range)
        assert not apart.published[0].is_inside
        assert any("outside of this figure" in sentence for sentence in sentences_of(apart))


def test_sentences_say_how_far_our_points_are_from_a_formula(evidence: Evidence):
    curve = {"label": "a law", "value": "4 * x ** -0.1 / 1.2", "checked": False}
    said = sentences_of(drawn(evidence, where="arm == 'a'", curves=[curve]))
    assert "Our points lie 20 % above “a law*”." in said
    assert said[-1].startswith("* a published curve that nobody has compared")
    said = sentences_of(drawn(evidence, curves=[{"label": "between", "value": "4.2 * x ** -0.1"}]))
    assert "Our points lie between 4.8 % below and 4.8 % above “between”." in said


def test_a_curve_of_one_series_is_compared_with_its_points_alone(evidence: Evidence):
    curve = {"label": "b's", "series": "b", "points": [[1e5, 4.4 * 1e5**-0.1 / 1.02]]}
    drawing = drawn(evidence, by="arm", curves=[curve])
    assert np.isfinite(drawing.published[0].at_ours).tolist() == [False] * 4 + [True] + [False] * 3
    assert "Our point there lies 2 % above “b's”." in sentences_of(drawing)


def test_a_figure_of_formulas_has_a_row_for_each_combination():
    drawing = drawn(NOTHING, grid={"tokens": [1e5, 1e6], "k": [1, 2, 3]}, y="k * tokens ** -0.1", by="k")
    assert [one.name for one in drawing.series] == ["1", "2", "3"]
    np.testing.assert_allclose(drawing.our_y, np.outer([1, 2, 3], [1e5**-0.1, 1e6**-0.1]).ravel())
    assert sentences_of(drawing)[0].startswith("Each of the 6 points is one number of a formula.")
    with pytest.raises(ValidationError, match="2,500 combinations; allowed are 2,000"):
        Figure(title="A figure", x="k", y="k", grid={"k": [1.0] * 50, "n": [1.0] * 50})


def test_a_published_slope_goes_through_the_middle_of_our_points(evidence: Evidence):
    (line,) = drawn(evidence, curves=[{"label": "slope", "slope": -0.05}]).published
    middle = np.exp(np.log([1e5, 2e5, 4e5, 8e5]).mean())
    at_middle = np.exp(np.interp(np.log(middle), np.log(line.x), np.log(line.y)))
    assert at_middle == pytest.approx(np.sqrt(4 * 4.4) * middle**-0.1, rel=1e-3)
    assert np.diff(np.log(line.y)) / np.diff(np.log(line.x)) == pytest.approx(-0.05)


def test_colours_are_named_as_people_write_the_values(evidence: Evidence):
    assert [one.name for one in drawn(evidence, by="tokens").series] == ["100k", "200k", "400k", "800k"]
    assert [one.name for one in drawn(evidence, by="arm == 'a'").series] == ["false", "true"]
    assert [one.name for one in drawn(evidence, by="tokens * 1e6").series][:2] == ["1e11", "2e11"]


def test_the_chart_names_its_axes_curves_and_series(evidence: Evidence):
    curve = {"label": "<b>law</b>", "value": 1.2}
    chart = json.dumps(figure_chart(drawn(evidence, by="arm", curves=[curve], joined=True, fit="line")).to_dict())
    for words in ('"training tokens"', '"loss (nats)"', '"<b>law</b>"', '"domain": ["a", "b"]'):
        assert words in chart


def test_points_that_nothing_tells_apart_have_a_legend_only_beside_published_curves(evidence: Evidence):
    def names(**settings: object) -> str:
        chart = figure_chart(drawn(evidence, **settings)).to_dict()
        return json.dumps([layer["encoding"].get("shape", {}).get("legend") for layer in chart["layer"]])

    assert names() == "[null, null]"
    assert "titleColor" in names(curves=[{"label": "law", "value": 1.2}])
    assert "titleColor" in names(by="arm")


def test_texts_on_the_x_axis_stand_side_by_side_in_the_order_of_the_runs(evidence: Evidence):
    backwards = Evidence(evidence.table[::-1].reset_index(drop=True), evidence.axes, evidence.source)
    drawing = drawn(backwards, x="arm", log=["y"], where="tokens == 1e5")
    assert drawing.x.names == ("b", "a")
    np.testing.assert_allclose(drawing.our_x, [0, 1])
    np.testing.assert_allclose(drawing.our_y, [4.4 * 1e5**-0.1, 4.0 * 1e5**-0.1])
    assert "The lowest loss is 1.265, at arm = a; the highest is 1.391, at arm = b." in sentences_of(drawing)[0]
    chart = json.dumps(figure_chart(drawing).to_dict())
    assert '"domain": ["b", "a"]' in chart and '"x": "b"' in chart


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"x": "tokns"}, "there is no column 'tokns'. Did you mean 'tokens'"),
        ({"y": "mean(loss)"}, r"in each row, allowed are log"),
        ({"y": "arm"}, "'arm' is no column of numbers"),
        ({"x": "arm"}, "'arm' has texts, which have no logarithm"),
        ({"x": "arm", "log": [], "fit": "line"}, "'arm' has texts, which have no logarithm, no fit"),
        ({"by": "loss"}, "has 24 values; at most 12"),
        ({"where": "loss > 100"}, "the runs have no points for this figure"),
        (
            {"by": "arm", "curves": [{"label": "a", "value": 1, "series": "c"}]},
            "the curve 'a' is of c; the series are a, b",
        ),
        ({"curves": [{"label": "a", "value": "y + 1"}]}, "there is no column 'y'"),
        ({"curves": [{"label": "a", "value": "__import__('os')"}]}, "there is no function '__import__'"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_sentence(evidence: Evidence, settings: dict[str, object], why: str):
    with pytest.raises(UserError, match=why):
        drawn(evidence, **settings)


def test_a_power_of_what_has_none_is_no_number(evidence: Evidence):
    with pytest.raises(UserError, match="no points"):
        drawn(evidence, y="(0 - loss) ** 0.5")
