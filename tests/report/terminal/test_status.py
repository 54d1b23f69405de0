"""What `lmexp status` says below its table is true, whatever would start the runs that are left."""

from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from lmexp.report.terminal.status import print_status
from lmexp.runs.state import PRUNED

SAID = "Nothing runs now; the same command goes on from here."


def row(state: str, **known: Any) -> dict[str, Any]:
    unknown = dict.fromkeys(["share", "tokens_per_second", "seconds_left", "train_loss", "reason", "job"])
    return {"run": "a-1", "state": state, **unknown, **known}


DONE, PRUNED_ROW = row("done"), row("cancelled", reason=f"{PRUNED}25 % of its budget: loss 3 is not among the best")


def shown(rows: list[dict[str, Any]], by_itself: Callable[[], bool]) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    print_status(rows, by_itself, console)
    return console.export_text()


@pytest.mark.parametrize(
    "left",
    [
        row("queued"),
        row("failed"),
        row("cancelled", reason="the sweep was stopped"),
        row("preempted"),
        row("failed", job="slurm:7"),
    ],
)
def test_what_nobody_will_start_takes_a_command(left: dict[str, Any]):
    assert SAID in shown([DONE, PRUNED_ROW, left], lambda: False)
    assert "Nothing runs" not in shown([DONE, left], lambda: True), "it starts by itself"
    assert "Nothing runs" not in shown([left, row("running")], lambda: False)


@pytest.mark.parametrize("state", ["done", "oom", "diverged", "timeout"])
def test_where_every_run_has_its_answer_nothing_is_to_be_done(state: str):
    assert "Nothing runs" not in shown([DONE, PRUNED_ROW, row(state)], lambda: False)
