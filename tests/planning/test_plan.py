"""A plan: counted from the config, timed from a probe, null where nothing is known."""

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lmexp.config.schema import RunConfig
from lmexp.cost.device import Device
from lmexp.cost.horizon import horizon
from lmexp.planning.plan import MEMORY_SOURCES, CostedRun, plan, totals
from lmexp.planning.simulate import assumed_law, points_of_plan
from lmexp.report.terminal.plan import plan_sentence, print_plan
from lmexp.runs.probes import Probe
from lmexp.runs.record import Row

Config = Callable[..., RunConfig]
GPU = Device("cuda", "a GPU", 8, 80.0, (9, 0), native_bf16=True)


def a_trial(step_seconds: float = 0.1, warmup_seconds: float = 2.0, joules: float | None = None) -> Probe:
    source = "nvml" if joules is not None else None
    return Probe(step_seconds, 20, warmup_seconds, 5, joules, source, 0.0)


def cell(config: RunConfig, probe: Probe | None) -> CostedRun:
    return CostedRun({}, config, horizon(config, 10**6, "cuda"), GPU, probe)


def test_seconds_are_the_warm_up_and_the_steps_after_it(config: Config):
    (row,) = plan([cell(config("model.vocab_size=257"), a_trial())])
    assert row["steps"] == 20 and row["train_seconds"] == 2.0 + 15 * 0.1


def test_counted_energy_comes_before_rated_power(config: Config):
    rated = config("model.vocab_size=257", "hardware.watts=700", "trainer.devices=8")
    (counted,), (estimated,), (unknown,) = (
        plan([cell(rated, a_trial(joules=360.0))]),
        plan([cell(rated, a_trial())]),
        plan([cell(config("model.vocab_size=257"), a_trial())]),
    )
    assert (counted["energy_kwh"], counted["energy_source"]) == (20 * 360 / 3.6e6, "nvml")
    assert estimated["energy_kwh"] == 700 * 8 * 3.5 / 3.6e6 and estimated["energy_source"] == "estimated"
    assert unknown["energy_kwh"] is None and unknown["energy_source"] is None


def test_a_price_is_paid_for_every_device(config: Config):
    paid = config("model.vocab_size=257", "hardware.dollars_per_hour=3", "trainer.devices=8")
    (row,) = plan([cell(paid, a_trial())])
    assert row["dollars"] == 3 * 8 * 3.5 / 3600
    half = ["launcher.devices_per_run=0.5", "launcher.exclusive=false"]
    shared = config("model.vocab_size=257", "hardware.dollars_per_hour=3", "hardware.watts=100", *half)
    [row] = plan([cell(shared, a_trial())])
    assert (row["dollars"], row["energy_kwh"]) == (3 * 3.5 / 3600 / 2, 100 * 3.5 / 3.6e6 / 2)


def test_milestones_cost_what_they_train_and_are_points_of_one_unit(config: Config):
    words = ["model.vocab_size=257", "schedule=wsd", "budget.milestones=[0.5]"]
    (alone,) = plan([cell(config("model.vocab_size=257"), a_trial())])
    (row,) = rows = plan([cell(config(*words), a_trial())])
    assert row["milestones"] == [2560, 5120] and row["steps"] == 10 + (20 - 7)
    assert row["train_flops"] == row["tokens"] * row["flops_per_token"] and row["train_seconds"] == 2.0 + 18 * 0.1
    assert plan_sentence("x", rows).endswith("; 2 rows for 0.77 of the FLOPs of separate runs")
    points = points_of_plan(rows, assumed_law("E=1.7,A=400,B=410,alpha=0.34,beta=0.28", 0.01), "x")
    assert points.tokens.tolist() == [2560, 5120] and points.n_units == 1
    assert points.flops[1] == pytest.approx(alone["train_flops"])


def test_a_total_with_an_unknown_part_is_unknown(config: Config):
    known, unknown = cell(config("model.vocab_size=257"), a_trial()), cell(config("model.vocab_size=257"), None)
    assert totals(plan([known, known]))["train_seconds"] == 7.0
    assert totals(plan([known, unknown]))["train_seconds"] is None
    assert totals(plan([known, unknown]))["tokens"] == 2 * 5120


@given(st.floats(1e-4, 10), st.floats(1e-3, 100), st.integers(6, 10**6))
def test_steps_in_some_seconds_and_seconds_of_some_steps_are_inverse(step: float, warm: float, steps: int):
    probe = a_trial(step, warm)
    assert probe.steps_in(probe.seconds(steps)) == steps


def test_memory_without_a_formula_is_marked_as_an_estimate(config: Config):
    (row,) = plan([cell(config("model.vocab_size=257"), None)])
    assert row["memory_source"] == "formula" and "~" not in printed([row])
    assert MEMORY_SOURCES["counted"] == "estimated"
    shown = printed([row | {"memory_source": "estimated"}, row])
    assert shown.count("~") == 2 and "~ is a rough estimate" in shown


def test_the_memory_of_a_run_that_may_be_compiled_is_said_to_be_that_of_eager_training(config: Config):
    for compiles, is_said in {"auto": True, "true": True, "false": False}.items():  # auto compiles on a GPU
        (row,) = plan([cell(config("model.vocab_size=257", f"trainer.compile={compiles}"), None)])
        assert row["may_be_compiled"] is is_said
        assert ("Memory is that of eager training" in printed([row])) is is_said


def printed(rows: list[Row]) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    print_plan(rows, console)
    return console.export_text()
