"""Cells: grids, zips, points, exclusions, seeds, and words that narrow them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.config.cells import corners, expand, search_space
from lmexp.config.sweeps import SearchSpec, SweepSpec
from lmexp.errors import UserError

values = st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True)


@given(grid=st.dictionaries(st.sampled_from(["model.a", "model.b", "model.c"]), values), seeds=st.integers(1, 3))
def test_a_grid_is_every_combination_once(grid: dict[str, list[int]], seeds: int):
    cells = expand(SweepSpec(grid=grid, seeds=seeds), []).cells
    assert len(cells) == seeds * math.prod(map(len, grid.values()))
    assert len({tuple(sorted(cell.items())) for cell in cells}) == len(cells)
    assert all(cell[key] in grid[key] for cell in cells for key in grid)


def test_zipped_axes_advance_together_and_cross_the_grid():
    spec = SweepSpec(grid={"p": ["x", "y"]}, zip={"a": [1, 2], "b": [10, 20]})
    assert expand(spec, []).cells == [
        {"p": "x", "a": 1, "b": 10}, {"p": "x", "a": 2, "b": 20},
        {"p": "y", "a": 1, "b": 10}, {"p": "y", "a": 2, "b": 20},
    ]  # fmt: skip


def test_words_that_name_a_part_of_a_zip_are_refused():
    spec = SweepSpec(zip={"a": [1, 2], "b": [10, 20]})
    with pytest.raises(UserError, match="a is zipped with b: set all of them, or none"):
        expand(spec, ["a=1"])
    assert expand(spec, ["a=1", "b=3,4"]).cells == [{"a": 1, "b": 3}, {"a": 1, "b": 4}]


def test_points_alone_are_the_cells_and_beside_a_grid_join_it():
    assert expand(SweepSpec(points=[{"a": 1}, {"a": 2, "b": 3}]), []).cells == [{"a": 1}, {"a": 2, "b": 3}]
    assert expand(SweepSpec(grid={"a": [1]}, points=[{"a": 1}, {"a": 5}]), []).cells == [{"a": 1}, {"a": 5}]


def test_points_are_crossed_with_what_words_sweep():
    cells = expand(SweepSpec(points=[{"a": 1}, {"a": 2}]), ["b=3,4"]).cells
    assert cells == [{"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4}]


def test_an_exclusion_may_name_a_seed_but_no_stranger():
    assert expand(SweepSpec(seeds=3, exclude=[{"seed": 1}]), []).cells == [{"seed": 0}, {"seed": 2}]
    with pytest.raises(UserError, match="n_layer is no axis of the sweep"):
        expand(SweepSpec(grid={"model.n_layers": [1]}, exclude=[{"model.n_layer": 1}]), [])


def test_a_sweep_without_end_is_refused():
    with pytest.raises(UserError, match="10,000 are the most"):
        expand(SweepSpec(grid={"a": list(range(200)), "b": list(range(200))}), [])
    with pytest.raises(UserError, match="1000000000: a sweep has at most 10,000 cells"):
        expand(SweepSpec(grid={"a": [1, 2]}, seeds=10**9), [])
    points = [{"a": number} for number in range(6000)]
    with pytest.raises(UserError, match="the sweep has 12,000 cells"):
        expand(SweepSpec(points=points), ["b=1,2"])
    assert len(expand(SweepSpec(points=points), ["seed=1"]).cells) == 6000


def test_what_matches_all_values_of_an_exclusion_is_left_out():
    spec = SweepSpec(grid={"a": [1, 2], "b": [1, 2]}, exclude=[{"a": 1, "b": 2}, {"a": 9, "b": 1}])
    assert expand(spec, []).cells == [{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 2, "b": 2}]


def test_an_exclusion_that_matches_nothing_is_said_with_the_nearest_value():
    spec = SweepSpec(
        grid={"p": ["fp32", "bf16"], "n": [1, 2]},
        seeds=2,
        exclude=[{"p": "bf61"}, {"p": "fp32", "n": 1}, {"n": 3, "p": "fp32"}, {"seed": 7}],
    )
    assert expand(spec, []).warnings == [
        "sweep.exclude: {p:bf61} matches no cell; p has no value bf61. Did you mean 'bf16'?",
        "sweep.exclude: {n:3,p:fp32} matches no cell; n has no value 3.",
        "sweep.exclude: {seed:7} matches no cell",
    ]
    assert expand(spec, ["p=bf16", "seed=0"]).warnings == []  # these words leave out what the entries would
    zipped = SweepSpec(zip={"a": [1, 2], "b": [3, 4]}, exclude=[{"a": 1, "b": 4}, {"a": 2, "b": 4}])
    assert expand(zipped, []).warnings == ["sweep.exclude: {a:1,b:4} matches no cell"]


def test_seeds_are_a_number_or_a_list():
    assert [cell["seed"] for cell in expand(SweepSpec(seeds=2), []).cells] == [0, 1]
    assert [cell["seed"] for cell in expand(SweepSpec(seeds=[7, 9]), []).cells] == [7, 9]


def test_a_word_takes_the_place_of_an_axis():
    spec = SweepSpec(grid={"model.a": [1, 2], "model.b": [3, 4]}, seeds=2)
    narrowed = expand(spec, ["model.a=2", "seed=5", "model.c=1"])
    assert narrowed.cells == [{"model.a": 2, "model.b": b, "seed": 5} for b in (3, 4)]
    assert narrowed.fixed == ["model.c=1"]
    again = expand(spec, ["model.a=1", "++model.a=2", "model.b=3", "seed=5"])
    assert again.cells == narrowed.cells[:1]  # of several words, the last counts
    swept = expand(spec, ["model.b=range(7,9)", "seed=0"])
    assert [cell["model.b"] for cell in swept.cells] == [7, 8, 7, 8]


@given(grid=st.dictionaries(st.sampled_from(["a", "b", "c"]), values, min_size=1), data=st.data())
def test_a_narrower_sweep_has_some_of_the_same_cells_in_the_same_order(grid: dict[str, list[int]], data: st.DataObject):
    spec = SweepSpec(grid=grid, seeds=2)
    kept = data.draw(st.dictionaries(st.sampled_from(list(grid)), st.integers(0, 3)))
    words = [f"{key}={grid[key][at % len(grid[key])]}" for key, at in kept.items()]
    narrow, whole = expand(spec, words).cells, expand(spec, []).cells
    wanted = {word.split("=")[0]: int(word.split("=")[1]) for word in words}
    assert [list(cell.items()) for cell in narrow] == [
        list(cell.items()) for cell in whole if all(cell[key] == value for key, value in wanted.items())
    ]


def test_hydras_grammar_gives_values_of_their_types():
    axes = expand(SweepSpec(), ["a=1,2.5", "b=x,'y z'", "c=true,null", "d=[1,2],[3]"]).axes
    assert axes == {"a": [1, 2.5], "b": ["x", "y z"], "c": [True, None], "d": [[1, 2], [3]]}


AXIS = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(10, 99)).map(lambda ends: {"low": ends[0], "high": ends[1]}),
    st.lists(st.sampled_from(["x", "y", None, 1, 0.5]), min_size=1, max_size=3, unique=True).map(
        lambda choices: {"choices": choices}
    ),
)


@given(space=st.dictionaries(st.sampled_from(list("abcdefgh")), AXIS, min_size=1))
def test_the_corners_of_a_space_are_its_ends_and_choices(space: dict[str, dict]):
    search = SearchSpec.model_validate({"trials": 1, "space": space})
    found = list(corners(search))
    ends = {key: axis.get("choices") or [axis["low"], axis["high"]] for key, axis in space.items()}
    assert all(list(corner) == list(space) and all(corner[key] in ends[key] for key in space) for corner in found)
    assert len(found) == (count if (count := math.prod(map(len, ends.values()))) <= 64 else 2)
    assert found[0] == {key: values[0] for key, values in ends.items()}
    assert found[-1] == {key: values[-1] for key, values in ends.items()}


def test_a_word_fixes_a_key_of_a_space():
    search = SearchSpec.model_validate({"trials": 1, "space": {"a": {"low": 1, "high": 2}, "b": {"choices": [1]}}})
    assert list(search_space(search, ["a=3", "c=1"]).space) == ["b"]
    assert search_space(search, []) == search


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"zip": {"a": [1], "b": [1, 2]}}, "a has 1, b has 2"),
        ({"grid": {"a": []}}, "the axis a has no values"),
        ({"grid": {"sweep.seeds": [1, 2]}}, "sweep.seeds cannot be an axis"),
        ({"zip": {"run.id": ["x"]}}, "run.id cannot be an axis"),
        ({"grid": {"a": [1]}, "zip": {"a": [1]}}, "a is both in grid and in zip"),
        ({"grid": {"a": [1]}, "exclude": [{"a": 1}]}, "everything in it is excluded"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(spec: dict, said: str):
    with pytest.raises(UserError, match=said):
        expand(SweepSpec.model_validate(spec), [])
