"""The schedule that a run uses, when it comes from outside lmexp."""

import sys

import pytest

from lmexp.config.schedules import OutsideSchedule
from lmexp.config.trust import trusting
from lmexp.errors import UserError
from lmexp.train.schedule import open_schedule


@pytest.mark.parametrize(
    ("returned", "says"),
    [("float('nan')", "nan"), ("-0.1", "-0.1"), ("'fast'", "'fast'"), ("None", "None"), ("float('inf')", "inf")],
)
def test_a_schedule_that_returns_no_usable_number_is_named(tmp_path, monkeypatch, returned: str, says: str):
    (tmp_path / "odd_schedules.py").write_text(f"def rate(share):\n    return {returned} if share > 0.5 else 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("odd_schedules", None)
    with trusting(["odd_schedules"]):
        schedule = open_schedule(OutsideSchedule(_target_="odd_schedules.rate"))
        assert schedule(0.5) == 1.0
        with pytest.raises(UserError, match=rf"odd_schedules\.rate returned {says} at share 0\.75 of the budget"):
            schedule(0.75)
