"""What fits under a cap: crossed, in a fixed order, and never beyond it."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.config.cells import expand
from lmexp.config.schema import BudgetConfig
from lmexp.config.sweeps import SweepSpec
from lmexp.errors import UserError
from lmexp.planning.cuts import caps_of, check_known, cut, exclusion, load, scaled_budget

Cells = list[dict[str, Any]]


def crossed(sizes: list[float], precisions: int, seeds: int) -> tuple[Cells, list[dict[str, Any]]]:
    """A grid whose runs take FLOPs in proportion to their size."""
    axes = itertools.product(sizes, range(precisions), range(seeds))
    cells = [{"model.d_model": size, "precision": str(p), "seed": seed} for size, p, seed in axes]
    return cells, [{"train_flops": float(cell["model.d_model"])} for cell in cells]


GRIDS = st.tuples(
    st.lists(st.integers(1, 1000).map(float), min_size=1, max_size=5, unique=True), st.integers(1, 3), st.integers(1, 4)
)


@given(GRIDS, st.floats(1.0, 20_000.0))
def test_a_cap_is_never_exceeded_and_what_stays_is_crossed(grid: tuple[list[float], int, int], most: float):
    cells, rows = crossed(*grid)
    caps = {"train_flops": most}
    found = cut(cells, rows, caps)
    if found is None:
        assert min(row["train_flops"] for row in rows) > most
        return
    kept = [cells[i] for i in found.kept]
    assert kept and load([rows[i] for i in found.kept], caps) <= 1
    values = [{cell[axis] for cell in kept} for axis in cells[0]]
    assert len(kept) == math.prod(map(len, values))


@given(GRIDS, st.floats(1.0, 20_000.0))
def test_the_word_leaves_out_what_was_dropped_and_nothing_else(grid: tuple[list[float], int, int], most: float):
    sizes, precisions, seeds = grid
    cells, rows = crossed(*grid)
    found = cut(cells, rows, {"train_flops": most})
    if found is None:
        return
    axes = {"model.d_model": sizes, "precision": list(map(str, range(precisions)))}
    written = exclusion(SweepSpec(grid=axes, seeds=seeds), found.dropped)
    from lmexp.config.overrides import parse_overrides

    patterns = parse_overrides([written])[0].value()
    told = expand(SweepSpec(grid=axes, seeds=seeds, exclude=patterns), [])
    assert told.cells == [cells[i] for i in found.kept]


def test_third_seeds_go_before_sizes_and_sizes_before_the_second_seed():
    cells, rows = crossed([1.0, 2.0, 4.0], 1, 3)
    assert cut(cells, rows, {"train_flops": 14.0}).dropped == [("seed", 2)]
    assert cut(cells, rows, {"train_flops": 13.0}).dropped == [("seed", 2), ("model.d_model", 1.0)]
    assert cut(cells, rows, {"train_flops": 6.0}).dropped == [("seed", 2), ("model.d_model", 4.0)]
    assert cut(cells, rows, {"train_flops": 3.0}).dropped == [("seed", 2), ("model.d_model", 4.0), ("seed", 1)]


def test_what_fits_again_comes_back():
    cells, rows = crossed([1.0, 10.0], 1, 3)
    found = cut(cells, rows, {"train_flops": 12.0})
    assert found.dropped == [("seed", 2), ("seed", 1)] and len(found.kept) == 2


def test_all_caps_hold_at_once():
    cells, rows = crossed([1.0, 2.0, 4.0], 1, 1)
    for row in rows:
        row["train_seconds"] = 8 - row["train_flops"]  # the small ones are the slow ones
    found = cut(cells, rows, {"train_flops": 6.0, "train_seconds": 10.0})
    assert [cells[i]["model.d_model"] for i in found.kept] == [2.0, 4.0]


def test_patterns_of_the_file_stay_excluded():
    spec = SweepSpec(grid={"a": [1, 2]}, exclude=[{"a": 1, "b": "x y"}])
    assert exclusion(spec, [("c", 1e13), ("d", None)]) == "sweep.exclude=[{a:1,b:'x y'},{c:1e+13},{d:null}]"


@given(st.integers(1, 10**12), st.floats(0.1, 0.999))
def test_a_scaled_budget_is_never_above_its_share(tokens: int, factor: float):
    (word,) = scaled_budget(SweepSpec(), {}, [BudgetConfig(tokens=tokens)] * 2, factor)
    assert float(word.removeprefix("budget.tokens=")) <= max(tokens * factor, 1)
    (word,) = scaled_budget(SweepSpec(), {"budget.flops": [float(tokens)]}, [], factor)
    assert float(word.removeprefix("budget.flops=")) <= tokens * factor * (1 + 1e-12)


def test_budgets_that_no_word_can_scale_are_left():
    flops, tokens = BudgetConfig(flops=1e12), BudgetConfig(tokens=5)
    assert scaled_budget(SweepSpec(), {}, [flops, tokens], 0.5) is None
    zipped = SweepSpec(zip={"budget.flops": [1e12], "model.d_model": [64]})
    assert scaled_budget(zipped, {"budget.flops": [1e12]}, [flops], 0.5) is None
    assert scaled_budget(SweepSpec(), {"budget": ["tokens", "flops"]}, [flops, tokens], 0.5) is None
    shares, whole = BudgetConfig(tokens=1000, milestones=[0.5]), BudgetConfig(tokens=1000, milestones=[500])
    assert scaled_budget(SweepSpec(), {}, [shares], 0.5) == ["budget.tokens=500"]
    assert scaled_budget(SweepSpec(), {}, [whole], 0.5) is None


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_a_cap_is_a_number_above_0(wrong: float):
    with pytest.raises(UserError, match=r"--max-dollars .*: a number above 0"):
        caps_of(wrong, None, None)


def test_an_unknown_cost_is_refused_with_the_way_to_know_it():
    row = {"train_flops": 1.0, "train_seconds": None, "dollars": None}
    with pytest.raises(UserError, match="time of 1 of 1 runs is not known: `lmexp plan x --measure`"):
        check_known("x", [row], caps_of(None, 1.0, None))
    with pytest.raises(UserError, match=r"needs a price: set hardware\.dollars_per_hour"):
        check_known("x", [row | {"train_seconds": 1.0}], caps_of(1.0, None, None))
