"""How often the nominal 95 % intervals of relations hold the truth, in simulated studies; docs/fitting.md has more."""

import pytest

from lmexp.analysis.scaling.relations.fit import Asked, fit_relation
from lmexp.analysis.scaling.relations.rows import rows_of_frame
from tests.analysis.scaling.relations.studies import SIGMOID, rate_grid, scored_runs

STUDIES = 60
FEWEST = 51
"""Of 60 studies, 57 are expected; fewer than 51 have a probability of 0.2 % at a coverage of 95 %."""


@pytest.mark.slow
@pytest.mark.parametrize("own", [0.0, 0.2])
def test_the_exponents_of_the_best_rate(own: float):
    asked = Asked("learning_rate")
    held = {"a": 0, "b": 0}
    for seed in range(STUDIES):
        table = rate_grid(noise=0.01, seed=seed, own=own)
        intervals = fit_relation(rows_of_frame(table, in_law=asked.columns), asked).formulas[0].intervals
        for name, truth in (("a", -0.713), ("b", 0.307)):
            held[name] += intervals[name][0] < truth < intervals[name][1]
    assert min(held.values()) >= FEWEST, held


@pytest.mark.slow
def test_the_exponents_of_as_many_groups_as_numbers_which_rest_on_the_noise_of_runs_alone():
    asked = Asked("learning_rate")
    held = {"a": 0, "b": 0}
    for seed in range(STUDIES):
        table = rate_grid(noise=0.01, seed=seed, sizes=(1e7, 1e9))
        three = table[(table["params"] < 1e8) | (table["tokens"] < 2e10)]
        intervals = fit_relation(rows_of_frame(three, in_law=asked.columns), asked).formulas[0].intervals
        for name, truth in (("a", -0.713), ("b", 0.307)):
            held[name] += intervals[name][0] < truth < intervals[name][1]
    assert min(held.values()) >= FEWEST and max(held.values()) < STUDIES, held


@pytest.mark.slow
def test_the_numbers_of_the_score_by_the_loss():
    held = dict.fromkeys(SIGMOID, 0)
    for seed in range(STUDIES):
        table = scored_runs(noise=1, seed=seed)[["loss", "accuracy"]]
        relation = fit_relation(rows_of_frame(table, needs_sizes=False), Asked("downstream", score="accuracy"))
        for name, truth in SIGMOID.items():
            low, high = relation.formulas[0].intervals[name]
            held[name] += low < truth < high
    assert min(held.values()) >= FEWEST, held
