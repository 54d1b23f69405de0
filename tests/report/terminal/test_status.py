"""What `lmexp status` says below its table is true, whatever would start the runs that are left."""

from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from lmexp.report.terminal.status import print_status
from lmexp.runs.state import PRUNED

SAID = "Nothing runs now; the same command continues from here."


def row(state: str, **known: Any) -> dict[str, Any]:
    unknown = dict.fromkeys(["share", "tokens_per_second", "seconds_left", "train_loss", "reason", "job"])
    return {"run": "a-1", "state": state, **unknown, **known}


DONE, PRUNED_ROW = row("done"), row("cancelled", reason=f"{PRUNED}25 % of its budget: loss 3 is not among the best")


def shown(rows: list[dict[str, Any]], by_itself: Callable[[], bool], width: int = 120) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
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


def test_a_run_is_one_line_in_a_narrow_terminal_and_its_reason_follows():
    name = "gpt_nano-n_layers2-lr0.0003-bf16-seed1"
    running = {"share": 0.5, "tokens_per_second": 12_300.0, "seconds_left": 3725.0, "train_loss": 3.21987}
    rows = [
        row("running", **running) | {"run": f"{name}-0123456789ab"},
        row("done", share=1.0) | {"run": "b-9876543210ab"},
    ]
    rows += [row("queued", reason="the sweep was stopped") | {"run": f"c{i}-0123456789ab"} for i in range(2)]
    lines = shown(rows, lambda: True, width=72).splitlines()
    assert max(map(len, lines)) <= 72
    (line,) = [line for line in lines if line.startswith(name)]
    assert "running" in line and "50%" in line and "0123456789ab" not in line
    assert lines[-2:] == ["1 running, 1 done, 2 queued", "2 runs: the sweep was stopped"]
    assert "train loss" not in lines[0] and any("Not shown" in line and "train loss" in line for line in lines)


def test_names_of_any_length_are_one_line_of_80_characters_and_stay_distinct():
    name = "llama_nano-n_layers2-d_model64-lr{}-batch_tokens4096-bf16-muon-wsd-seed1"
    running = {"share": 0.5, "tokens_per_second": 12_300.0, "seconds_left": 3725.0, "train_loss": 3.21987}
    predicted = {"predicted_loss": 3.41, "predicted_low": 3.3622, "predicted_high": 3.4591}
    rows = [
        row("running", **running, **predicted) | {"run": f"{name.format(f'0.000{i}')}-0123456789a{i}"}
        for i in range(1, 6)
    ]
    lines = shown(rows, lambda: True, width=80).splitlines()
    of_runs = [line for line in lines if " running " in line]
    assert max(map(len, lines)) <= 80
    assert len({line.split()[0] for line in of_runs}) == 5, lines
    assert all("…" in line and "50%" in line for line in of_runs)


def test_runs_of_one_name_are_told_apart_by_the_keys_that_differ():
    rows = [row("done") | {"run": f"a-{i}", "differs": {"optim.lr": lr}} for i, lr in enumerate((0.003, 0.001))]
    text = shown([*rows, row("done") | {"run": "b-2"}], lambda: False)
    assert "a, lr 0.003 " in text and "a, lr 0.001 " in text and "\nb " in text


def test_numbers_that_are_equal_when_rounded_are_written_in_full():
    rows = [row("done") | {"run": f"a-{i}", "differs": {"budget.tokens": 200_000 + i}} for i in range(2)]
    text = shown(rows, lambda: False)
    assert "tokens 200000 " in text and "tokens 200001 " in text


def test_a_cell_that_nobody_starts_has_not_started_and_one_that_waits_is_queued():
    rows = [DONE, row("queued", attempts=0) | {"run": "b-1"}, row("queued", attempts=1) | {"run": "c-1"}]
    stopped = shown(rows, lambda: False)
    assert "1 done, 1 not started, 1 queued" in stopped
    assert "1 done, 2 queued" in shown(rows, lambda: True), "a coordinator is at work, or a scheduler has their jobs"


def test_runs_of_one_config_keep_their_hashes():
    text = shown([row("done") | {"run": "a-0123456789ab"}, row("done") | {"run": "a-ba9876543210"}], lambda: False)
    assert "a-0123456789ab" in text and "a-ba9876543210" in text


def test_a_predicted_loss_has_its_interval_a_missing_one_its_reason_and_all_their_calibration():
    known = {"predicted_loss": 3.41, "predicted_low": 3.3622, "predicted_high": 3.4591}
    rows = [row("running", **known), row("running", not_predicted="its curve has no point yet") | {"run": "b-1"}]
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    print_status(rows, lambda: True, console, ["Final losses predicted at 25 % of training were 1 % off."])
    text = console.export_text()
    assert "3.410 (3.362 to 3.459)" in text
    assert "b: no final loss is predicted yet: its curve has no point yet" in text
    assert text.rstrip().endswith("Final losses predicted at 25 % of training were 1 % off.")
