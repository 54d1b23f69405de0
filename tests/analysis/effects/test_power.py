"""How many seeds show a difference follows from the study's own scatter, and is said with its range."""

import pytest

from lmexp.analysis.effects.noise import seeds_needed
from lmexp.analysis.effects.power import seeds_to_show
from lmexp.errors import UserError
from tests.analysis.effects.test_pairing import study_of

AXES = {"precision": ["fp32", "bf16"], "seed": [0, 1, 2]}
LOSSES = {"fp32": [3.0, 3.1, 2.9], "bf16": [3.01, 3.12, 2.90]}


def study(task: str = "causal_lm"):
    return study_of(
        [{"precision": arm, "seed": s, "loss": loss, "task": task if arm == "bf16" else "causal_lm"}
         for arm, losses in LOSSES.items() for s, loss in enumerate(losses)], AXES
    )  # fmt: skip


def test_the_seeds_are_those_that_the_scatter_asks_for_also_at_its_ends():
    unpaired, paired = seeds_to_show(study(), "loss", 0.05).ways
    assert unpaired.seeds == seeds_needed(0.05, unpaired.noise.sd)
    assert (unpaired.low, unpaired.high) == tuple(
        seeds_needed(0.05, end) for end in (unpaired.noise.low, unpaired.noise.high)
    )
    assert paired.seeds == seeds_needed(0.05, paired.noise.sd, paired=True) < unpaired.seeds


def test_the_present_seeds_are_said_and_what_they_show():
    detection = seeds_to_show(study(), "loss", 0.05)
    assert detection.present == 3
    assert detection.sentences[-1].startswith("The 3 seeds that there are show a difference of ")


def test_the_document_holds_the_same():
    detection = seeds_to_show(study(), "loss", 0.05)
    assert [way["seeds"] for way in detection.document["ways"]] == [way.seeds for way in detection.ways]
    assert detection.document["ways"][0]["sd"] == detection.ways[0].noise.sd


@pytest.mark.parametrize("difference", [0.0, -1.0, float("inf"), float("nan")])
def test_a_difference_must_be_above_zero(difference: float):
    with pytest.raises(UserError, match="a difference above 0"):
        seeds_to_show(study(), "loss", difference)


def test_several_tasks_are_a_wrong_question():
    with pytest.raises(UserError, match="--detect is about one task"):
        seeds_to_show(study(task="masked_lm"), "loss", 0.05)
