"""A gate passes only if the whole interval lies above its bound, and says which runs would decide."""

from pathlib import Path

import pytest

from lmexp.analysis.versus.gate import Gate, _judged, judge, read_gate
from lmexp.analysis.versus.versus import CostVersus, Speedup
from lmexp.errors import UserError
from tests.analysis.versus.simulated import compared, milestones_study


def speedup(low: float | None, high: float | None, value: float = 1.1) -> Speedup:
    return Speedup("overall", value, low, high, None, 3, "pairs", "Train more.", 0.1)


def verdict_on(one: Speedup, cost: str = "flops", unknown: int = 0, is_slowed: bool = False) -> tuple[str, str]:
    """Return the verdict on an overall speedup, and its sentence."""
    return _judged(Gate(min_speedup=1.05, cost=cost), one, CostVersus(cost, one, (), unknown, is_slowed, ()))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.06, 1.2, "pass"),
        (1.0, 1.2, "undecided"),
        (1.05, 1.2, "undecided"),
        (0.9, 1.04, "fail"),
        (None, None, "undecided"),
    ],
)
def test_the_lower_end_must_lie_above_the_bound(low: float | None, high: float | None, verdict: str):
    assert verdict_on(speedup(low, high))[0] == verdict


def test_an_open_gate_says_how_many_pairs_would_decide():
    _, sentence = verdict_on(speedup(0.9, 1.3))
    assert sentence.startswith("1.1 (0.9 to 1.3) does not lie on one side of 1.05. About 39 pairs"), sentence


def test_a_cost_that_other_work_distorted_passes_no_gate():
    verdict, sentence = verdict_on(speedup(1.06, 1.2), "seconds", is_slowed=True)
    assert verdict == "undecided" and "measure seconds again" in sentence


def test_a_mean_that_leaves_out_cells_without_a_speedup_passes_no_gate():
    verdict, sentence = verdict_on(speedup(1.06, 1.2), unknown=2)
    assert verdict == "undecided" and "2 cells have no speedup and could change it" in sentence
    only_one = Speedup("d_model 64", 1.1, 1.06, 1.2, None, 3, "pairs")
    whole = CostVersus("flops", speedup(1.06, 1.2), (only_one,), 2, False, ())
    assert _judged(Gate(min_speedup=1.05), only_one, whole)[0] == "pass", "this scale has its own"


@pytest.mark.parametrize(("scales", "checks"), [("overall", 1), ("each", 2), (["d_model 64", "overall"], 2)])
def test_it_is_judged_in_the_scales_that_it_names(scales: str | list[str], checks: int):
    result = compared(milestones_study(1.5, 4, 0.001))
    judged = judge(Gate(min_speedup=1.2, scales=scales), result)
    assert judged.verdict == "pass" and len(judged.checks) == checks
    assert judge(Gate(min_speedup=1.9, scales=scales), result).verdict == "fail"


def test_a_scale_that_no_run_has_is_named_with_the_nearest():
    with pytest.raises(
        UserError, match=r"the gate's scale 'd_model 46' is not among the runs\. Did you mean 'd_model 64'"
    ):
        judge(Gate(min_speedup=1.2, scales=["d_model 46"]), compared(milestones_study(1.5, 2, 0.001)))


def test_a_cost_that_the_arm_lacks_is_named_with_the_reason():
    with pytest.raises(UserError, match="about dollars, which optim=muon lacks: optim=adamw has no dollars"):
        judge(Gate(min_speedup=1.2, cost="dollars"), compared(milestones_study(1.5, 2, 0.001)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("min_speedup: 1.2\nscale: each\n", r"gate.yaml:2: 'scale' is not a key of a gate. Did you mean 'scales'\?"),
        ("cost: flops\n", "min_speedup is missing"),
        ("min_speedup: two\n", "gate.yaml:1: min_speedup: input should be a valid number"),
        ("min_speedup: true\n", "min_speedup: a number is expected"),
        ("min_speedup: -1\n", "min_speedup: input should be greater than 0"),
        ("min_speedup: 1.1\ncost: flop\n", r"gate.yaml:2: cost: 'flop' is no cost. Did you mean 'flops'\?"),
        ("min_speedup: 1.1\nscales: []\n", "scales: name one scale at least"),
        ("min_speedup: 1.1\nconfidence: 95\n", "confidence: input should be less than 1"),
        ("- 1.1\n", "a gate has the keys min_speedup, cost, scales, confidence"),
        ("", "a gate has the keys"),
    ],
)
def test_a_wrong_file_is_one_message_with_its_line(text: str, said: str, tmp_path: Path):
    file = tmp_path / "gate.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        read_gate(file)
