"""What is tied on the frontier follows from the seeds: a claim for each rule, and a simulation of the error rate."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.analysis.effects.noise import LEVEL, pooled, spread
from lmexp.analysis.effects.ranking import RankedArm, Ranking, ranking
from lmexp.analysis.effects.ties import about_frontier, frontier_ties, tied_with
from lmexp.analysis.frontier import frontier
from lmexp.analysis.table import Study, _frame
from lmexp.runs.manifest import LookRule


def study_of(
    arms: dict[str, tuple[float, list[float]]], looks: tuple[LookRule, ...] = (), quality: str = "loss", **columns
) -> Study:
    """Return a study with an arm for each model: its cost, and the quality of each seed."""
    rows = [
        {"run_id": f"{name}{seed}", "slug": f"{name}-s{seed}", "task": "causal_lm", "state": "done", "model": name}
        | {"seed": seed, "train_seconds": cost, quality: value}
        | {column: values[name] for column, values in columns.items()}
        for name, (cost, values_of_arm) in arms.items()
        for seed, value in enumerate(values_of_arm)
    ]
    seeds = list(range(max(len(values) for _, values in arms.values())))
    axes = {"model": [*arms], "seed": seeds}
    members = {"s": frozenset(row["run_id"] for row in rows)}
    return Study(("s",), (), axes, _frame(rows, axes), (), 0, members, {}, looks=looks)


def tied(study: Study, quality="loss", cost="train_seconds") -> list[tuple[str, str, bool]]:
    found = frontier_ties(study, quality, cost)
    assert found is not None
    return [(tie.arm.name, tie.other.name, tie.is_on_frontier) for tie in found.ties]


NOISY = [0.02, -0.01, -0.01]
"""What three seeds do to an arm; in another order, the same noise without anything that arms share."""


def around(mean: float, turn: int = 0) -> list[float]:
    return [mean + NOISY[(seed + turn) % 3] for seed in range(3)]


TIED_ARMS = {"small": (1.0, around(3.0)), "large": (2.0, around(2.998, 1)), "huge": (4.0, around(2.0, 2))}
"""large is on the frontier of the means, and its gain over small is noise; that of huge is not."""


def test_a_point_of_the_frontier_whose_gain_is_noise_is_tied_with_the_next_cheaper_one():
    study = study_of(TIED_ARMS)
    assert tied(study) == [("large", "small", True)], "the gain of huge is larger than noise"


def test_a_point_off_the_frontier_is_tied_with_the_one_that_beats_it_by_no_more_than_noise():
    study = study_of({"small": (1.0, around(3.0)), "slow": (2.0, around(3.002, 1)), "bad": (2.0, around(4.0, 2))})
    assert tied(study) == [("slow", "small", False)]


def test_a_lucky_seed_is_on_the_frontier_of_runs_but_its_setting_is_tied():
    study = study_of({"small": (1.0, [3.00, 3.10, 3.05]), "large": (2.0, [3.11, 3.06, 2.99])})
    found = frontier_ties(study, "loss", "train_seconds")
    names = tied_with(study.table, found)
    assert frontier(study.table)[names.notna()].tolist() == [False, False, True], "its best seed is the best run"
    assert names.fillna("").tolist() == ["", "", "", "small", "small", "small"]


def test_more_is_better_where_it_is():
    study = study_of({"small": (1.0, around(0.5)), "large": (2.0, around(0.502, 1)), "bad": (3.0, around(0.2, 2))},
                     quality="accuracy")  # fmt: skip
    assert tied(study, "accuracy") == [("large", "small", True)]


def test_another_column_must_be_as_good_as_measured():
    arms = {"small": (1.0, around(3.0)), "large": (2.0, around(2.998, 1))}
    memory = {"small": 8.0, "large": 4.0}
    assert tied(study_of(arms, peak_memory_gb=memory)) == [("large", "small", True)]
    assert tied(study_of(arms, peak_memory_gb=memory), cost=["train_seconds", "peak_memory_gb"]) == []


def test_equal_costs_are_no_obstacle_and_equal_settings_are_tied_with_each_other():
    assert tied(study_of({"a": (1.0, around(3.0)), "b": (1.0, around(3.001, 1))})) == [("b", "a", False)]
    twins = tied(study_of({"a": (1.0, around(3.0)), "b": (1.0, around(3.0))}))
    assert twins == [("a", "b", True), ("b", "a", True)]


def test_without_repeated_seeds_the_noise_is_unknown_and_the_sentence_says_how_to_know_it():
    study = study_of({"a": (1.0, [3.0]), "b": (2.0, [2.9])})
    assert frontier_ties(study, "loss", "train_seconds") is None
    (said,) = about_frontier(study, "loss", "train_seconds", None)
    assert said.startswith("No cell has two finished seeds") and "lmexp sweep s model=a sweep.seeds=4" in said


@pytest.mark.parametrize("values", [[3.0], [math.nan], [3.0, 3.1, 2.9]])
def test_one_setting_and_runs_without_a_loss_have_no_ties(values):
    study = study_of({"a": (1.0, values)})
    found = frontier_ties(study, "loss", "train_seconds")
    assert found is None or (found.compared, found.ties) == (0, ())
    assert about_frontier(study, "loss", "train_seconds", found) == []


def test_an_arm_whose_cost_is_unknown_is_compared_with_nothing_and_nothing_with_it():
    arms = {"small": (1.0, around(3.0)), "unknown": (math.nan, around(2.0, 2)), "large": (2.0, around(2.998, 1))}
    found = frontier_ties(study_of(arms), "loss", "train_seconds")
    assert [(tie.arm.name, tie.other.name) for tie in found.ties] == [("large", "small")] and found.compared == 1


def test_diverged_runs_are_in_no_comparison():
    study = study_of({"a": (1.0, around(3.0)), "b": (2.0, around(2.999, 1))})
    study.table.loc[study.table["model"] == "b", "state"] = "diverged"
    assert frontier_ties(study, "loss", "train_seconds").compared == 0


def test_seeds_that_were_added_after_looks_are_not_judged_by_a_test_for_a_fixed_number():
    rule = LookRule(quality="loss", difference=0.1, cap=5)
    study = study_of({"a": (1.0, around(3.0)), "b": (2.0, around(2.999, 1))}, looks=(rule,))
    assert frontier_ties(study, "loss", "train_seconds") is None
    assert about_frontier(study, "loss", "train_seconds", None)[0].startswith("Look at 3 seeds")


def test_the_sentence_names_the_pairs_and_counts_the_comparisons():
    study = study_of(TIED_ARMS)
    (said,) = about_frontier(study, "loss", "train_seconds", frontier_ties(study, "loss", "train_seconds"))
    assert said == (
        "Within noise of a setting that costs no more: large (of small) "
        "(by loss, t test with Holm's correction over all 3 pairs of settings; 2 settings were compared)."
    )


def test_milestones_are_compared_at_their_own_tokens():
    rows = [
        {"run_id": f"{model}{seed}", "task": "causal_lm", "state": "done", "model": model, "seed": seed}
        | {"tokens": tokens, "train_seconds": float(tokens), "loss": 4.0 - tokens + around(gain, turn)[seed]}
        for (model, gain, turn), seed, tokens in product([("a", 0.0, 0), ("b", 0.001, 1)], range(3), [1, 2])
    ]
    axes = {"model": ["a", "b"], "seed": [0, 1, 2]}
    members = {"s": frozenset(str(row["run_id"]) for row in rows)}
    study = Study(("s",), (), axes, _frame(rows, axes), (), 0, members, {})
    assert tied(study) == [
        ("b at 2.00 tokens", "a at 2.00 tokens", False),
        ("b at 1.00 tokens", "a at 1.00 tokens", False),
    ]


ARM = st.tuples(st.integers(1, 4).map(float), st.integers(0, 3).map(float))


@settings(deadline=None, max_examples=60)
@given(st.lists(ARM, min_size=2, max_size=6))
def test_without_noise_only_equal_qualities_are_tied(arms):
    study = study_of({f"m{i}": (cost, [loss, loss]) for i, (cost, loss) in enumerate(arms)})
    found = frontier_ties(study, "loss", "train_seconds")
    assert all(tie.difference == 0 for tie in found.ties)


@settings(deadline=None, max_examples=60)
@given(st.lists(ARM, min_size=2, max_size=6), st.floats(0.0, 1.0))
def test_a_run_that_is_far_worse_and_dearer_changes_nothing_and_no_tie_costs_more(arms, noise):
    """Holm's method steps down: what is plainly told apart does not count for the other pairs."""
    turned = [noise * (-1) ** i for i in range(len(arms))]
    named = {f"m{i}": (cost, [loss - turned[i], loss + turned[i]]) for i, (cost, loss) in enumerate(arms)}
    before = frontier_ties(study_of(named), "loss", "train_seconds")
    after = frontier_ties(study_of(named | {"far": (100.0, [1e9])}), "loss", "train_seconds")
    assert all(tie.other.cost <= tie.arm.cost for tie in before.ties)
    said = [{(tie.arm.name, tie.other.name): tie.p for tie in found.ties} for found in (before, after)]
    assert said[0] == pytest.approx(said[1], rel=1e-6)


def equal_arms(draw: np.random.Generator, arms: int, seeds: int, shared: float) -> Ranking:
    """Return arms whose qualities differ by chance alone; equal seeds share a part of the variance."""
    of_seed = math.sqrt(shared) * draw.normal(size=seeds)
    values = of_seed + math.sqrt(1 - shared) * draw.normal(size=(arms, seeds))
    noise = pooled(list(values))
    assert noise is not None
    each = [RankedArm(str(i), spread(row), None, seeds=dict(enumerate(row))) for i, row in enumerate(values)]
    return Ranking(tuple(sorted(each, key=lambda arm: arm.quality.mean)), noise)


@pytest.mark.parametrize("arms", [2, 12])
def test_of_equal_arms_any_two_are_told_apart_in_at_most_5_percent_of_studies(arms):
    """The best and the worst differ most. The bound allows for three standard errors of 400 draws."""
    draw = np.random.default_rng(0)
    wrong = [equal_arms(draw, arms, 3, 0.5).adjusted[-1] <= LEVEL for _ in range(400)]
    assert np.mean(wrong) <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / 400)


def test_a_pair_has_one_p_value_in_the_first_sentence_and_on_the_frontier():
    study = study_of({"small": (1.0, around(3.0)), "large": (2.0, around(2.998, 1)), "huge": (4.0, around(2.996, 2))})
    of_best = dict(zip([arm.name for arm in ranking(study, "loss", "train_seconds").arms[1:]],
                       ranking(study, "loss", "train_seconds").adjusted, strict=True))  # fmt: skip
    on_frontier = {(tie.arm.name, tie.other.name): tie.p for tie in frontier_ties(study, "loss", "train_seconds").ties}
    assert on_frontier["huge", "large"] == of_best["large"]
