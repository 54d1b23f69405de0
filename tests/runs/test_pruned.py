"""What a search says of a trial that it gave up can be read again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.runs.pruned import Pruned, read_pruned
from lmexp.runs.state import PRUNED, State

VALUES = st.floats(-1e6, 1e6)


@given(st.sampled_from([0.25, 0.5, 1 / 9]), VALUES, VALUES, st.integers(1, 99), st.integers(1, 99))
def test_the_numbers_in_the_sentence_are_those_of_the_trial(share, value, last, kept, reached):
    trial = Pruned(share, "loss", value, last, kept, reached)
    read = read_pruned(trial.sentence)
    assert State(state="cancelled", reason=trial.sentence).is_pruned
    assert read is not None and (read.objective, read.kept, read.reached) == ("loss", kept, reached)
    assert [read.value, read.last] == [pytest.approx(number, abs=1e-4) for number in (value, last)]
    assert read.share == pytest.approx(share, rel=1e-5)


@pytest.mark.parametrize(
    "reason", ["", "cancelled by hand", f"{PRUNED}25 % of its budget", f"{PRUNED}x % of its budget: loss y is not "
               "among the best 1 of 3 (z would be)"],
)  # fmt: skip
def test_another_reason_is_not_read(reason):
    assert read_pruned(reason) is None
