"""What a search stopped is compared with the noise of the study's own seeds."""

import math

import pandas as pd
import pytest
from scipy import stats

from lmexp.analysis.effects.effects import noise_floor
from lmexp.analysis.effects.rungs import about_rungs
from lmexp.analysis.findings import findings
from lmexp.analysis.table import Study, _frame
from lmexp.runs.pruned import Pruned


def search_of(behind: list[float], seeds: list[float]) -> Study:
    """Return a search with a finished trial, perhaps with several seeds, and trials that were behind by so much."""
    done = [{"run_id": f"d{i}", "slug": f"d{i}", "state": "done", "optim.lr": 0.1, "seed": i, "loss": value}
            for i, value in enumerate(seeds)]  # fmt: skip
    stopped = [
        {"run_id": f"p{i}", "slug": f"p{i}", "state": "cancelled", "optim.lr": 0.2 + i, "seed": 0, "loss": 5.0}
        | {"reason": Pruned(0.25, "loss", 4.0 + gap, 4.0, 1, 3).sentence}
        for i, gap in enumerate(behind)
    ]
    rows = [{"task": "causal_lm", "train_seconds": 1.0} | row for row in done + stopped]
    axes = {"optim.lr": [0.1, *(0.2 + i for i in range(len(behind)))], "seed": list(range(len(seeds)))}
    members = {"s": frozenset(str(row["run_id"]) for row in rows)}
    return Study(("s",), (), axes, _frame(rows, axes), (), 0, members, {}, objectives=("loss",))


def test_trials_that_were_stopped_for_less_than_two_seeds_differ_by_are_counted():
    seeds = [3.00, 3.01, 2.99]
    margin = stats.t.ppf(0.975, 2) * pd.Series(seeds).std() * math.sqrt(2)
    study = search_of([0.5 * margin, 2 * margin, 0.9 * margin], seeds)
    (said,) = about_rungs(study, "loss", noise_floor(study, "loss"))
    assert said == (
        f"3 trials were stopped early; 2 of them were behind by no more than {margin:.4f}, by which two runs of one "
        "setting differ (95 %), so that may have been chance."
    )
    (far,) = about_rungs(search_of([2 * margin], seeds), "loss", noise_floor(study, "loss"))
    assert "behind by more than" in far


def test_where_the_noise_is_unknown_that_is_said_of_the_rungs_too():
    study = search_of([0.02, 0.01], [3.0])
    (said,) = about_rungs(study, "loss", None)
    assert "the closest for a loss 0.0100 behind; it is unknown whether that is noise" in said
    assert said in findings(study).answer


def test_where_a_search_has_no_repeated_seed_the_command_repeats_its_cheapest_trial_and_searches_no_further():
    study = search_of([], [3.0])
    other = study.table.iloc[:1].assign(**{"run_id": "o", "slug": "o", "optim.lr": 0.7, "train_seconds": 0.5})
    table = pd.concat([study.table, other], ignore_index=True)
    axes, members = {"optim.lr": [0.1, 0.7]}, {"s": frozenset(table["run_id"])}
    said = findings(Study(("s",), (), axes, table, (), 0, members, {}, objectives=("loss",))).answer[-1]
    assert "`lmexp sweep s optim.lr=0.7 sweep.search=null sweep.seeds=4`, then `lmexp report s --all`" in said


def test_a_search_without_stopped_trials_says_nothing_of_rungs():
    assert about_rungs(search_of([], [3.0]), "loss", None) == []


@pytest.mark.parametrize("loss", [3.01, 9.0])
def test_the_answer_of_a_search_names_what_is_tied_with_the_best_trial(loss):
    study = search_of([], [3.0, 3.02, 2.99])
    other = study.table.iloc[:1].assign(**{"run_id": "o", "slug": "o", "optim.lr": 0.7, "loss": loss})
    table = pd.concat([study.table, other], ignore_index=True)
    axes, members = {**study.axes, "optim.lr": [0.1, 0.7]}, {"s": frozenset(table["run_id"])}
    answer = findings(Study(("s",), (), axes, table, (), 0, members, {}, objectives=("loss",))).answer
    (said,) = [sentence for sentence in answer if sentence.startswith("The second, lr 0.7, is")]
    assert ("within noise" in said) == (loss < 4)
