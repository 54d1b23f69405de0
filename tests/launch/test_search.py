"""Searches: what is proposed, what the study is told, and what a killed coordinator leaves."""

import json
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from optuna.trial import TrialState

from lmexp.analysis.frontier import frontier
from lmexp.analysis.table import load_study
from lmexp.config.sweeps import Choices, Interval, SearchAxis
from lmexp.errors import UserError
from lmexp.launch.pending import is_pending
from lmexp.launch.queue import run_sweep
from lmexp.launch.search import JOURNAL, Search, _distribution, _value
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.manifest import read_manifest
from lmexp.runs.record import identity_columns
from lmexp.runs.state import State
from tests.command import start_process
from tests.conftest import Lmexp
from tests.launch.searches import Resolve, points, resolve, sweep_file
from tests.launch.test_queue import Notes

__all__ = ["resolve"]  # the fixture


def quality(planned: PlannedRun) -> float:
    """What a run that is not really trained comes to: best at a rate of 0.003 and two layers."""
    rate, layers = planned.values.get("optim.lr", 3e-3), planned.values.get("model.n_layers", 2)
    return 3 + (math.log10(rate) - math.log10(3e-3)) ** 2 + (layers - 2) ** 2 / 10


def finish(planned: PlannedRun, loss: float | None = None, **row: Any) -> State:
    """Leave what a worker leaves that has trained the run."""
    loss = quality(planned) if loss is None else loss
    planned.run.write_record(
        [{**identity_columns(planned.config), "loss": loss, "train_flops": planned.horizon.flops, **row}]
    )
    return planned.run.update_state(state="done")


def play(
    sweep: Sweep, outcome: Callable[[PlannedRun], State] = finish, most: int = 1000
) -> tuple[Search, list[PlannedRun]]:
    """Be the queue of one place, without training; return the search and the runs that were started."""
    sweep.folder.mkdir(parents=True, exist_ok=True)
    search, started = Search(sweep), []
    while len(started) < most and (planned := search.peek()) is not None:
        assert search.peek() is planned and search.pop() is planned
        state = planned.run.read_state()
        if not search.has_answer(planned, state):
            started.append(planned)
            state = outcome(planned)
        search.ended(planned, state)
    assert search.exhausted or len(started) == most
    return search, started


def told(search: Search) -> list[TrialState]:
    return [trial.state for trial in search._study.get_trials()]


# What is proposed.

numbers = st.floats(1e-6, 1e6).map(lambda value: float(f"{value:.6g}"))
whole = st.integers(1, 10_000)


@st.composite
def axes(draw: st.DrawFn) -> SearchAxis:
    kind = draw(st.sampled_from(["real", "log", "step", "whole", "whole log", "whole step", "choices"]))
    if kind == "choices":
        return Choices(choices=draw(st.lists(st.sampled_from(["a", "b", 1, 2.5, None]), min_size=1, unique=True)))
    low, high = sorted(draw(st.lists(whole if "whole" in kind else numbers, min_size=2, max_size=2, unique=True)))
    step = None
    if "step" in kind:
        step = draw(st.integers(1, high - low)) if "whole" in kind else (high - low) / draw(st.floats(1, 50))
    return Interval(low=low, high=high, log="log" in kind, step=step)


@given(axis=axes(), seed=st.integers(0, 1000))
@example(axis=Interval(low=0.123451, high=0.123459), seed=0)  # four digits would lie outside
def test_every_proposal_lies_in_the_space(axis: SearchAxis, seed: int):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    value = _value(axis, study.ask({"x": _distribution(axis)}).params["x"])
    if isinstance(axis, Choices):
        assert value in axis.choices
        return
    assert axis.low <= value <= axis.high
    assert isinstance(value, int) == axis.is_whole
    if axis.step is not None:
        steps = (value - axis.low) / axis.step
        assert steps == pytest.approx(round(steps), abs=1e-4)
    elif not axis.is_whole and value not in (axis.low, axis.high):
        assert value == float(f"{value:.4g}")


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_the_same_seed_proposes_the_same_however_often_it_is_interrupted(
    resolve: Resolve, tmp_path: Path, sampler: str
):
    at_once = resolve(sampler=sampler, trials=9)
    play(at_once)
    (tmp_path / "outputs" / "s").rename(tmp_path / "first")
    for total in (2, 3, 7, 9):
        in_parts = resolve(sampler=sampler, trials=9)
        play(in_parts, most=total - len(list((tmp_path / "outputs" / "s").glob("*/record.json"))))
    cells = [planned.values for planned in at_once.runs]
    assert [planned.values for planned in in_parts.runs] == cells
    assert len(cells) >= 8  # nor does it repeat itself, but for a crossover of two that were alike
    (tmp_path / "outputs" / "s").rename(tmp_path / "second")
    other = resolve(sampler=sampler, trials=9, seed=1)
    play(other)
    assert [planned.values for planned in other.runs] != cells


def test_trials_count_those_of_earlier_calls_and_can_be_raised(resolve: Resolve):
    assert len(play(resolve(trials=3))[1]) == 3
    assert len(play(resolve(trials=3))[1]) == 0
    assert len(play(resolve(trials=5))[1]) == 2


def test_the_same_values_twice_are_one_run_and_two_trials(resolve: Resolve):
    sweep = resolve(trials=6, space={"model.n_layers": {"choices": [1, 2]}})
    search, started = play(sweep)
    assert len(started) == len(sweep.runs) == 2
    assert told(search) == [TrialState.COMPLETE] * 6


def test_two_trials_of_the_same_values_are_not_under_way_together(resolve: Resolve):
    sweep = resolve("launcher.slots=3", trials=3, space={"model.n_layers": {"choices": [2]}})
    sweep.folder.mkdir(parents=True)
    search = Search(sweep)
    assert search.peek() is not None
    first = search.pop()
    assert search.peek() is None and not search.exhausted
    search.ended(first, finish(first))
    for _ in range(2):
        assert search.peek() is first and search.has_answer(first, first.run.read_state())
        search.ended(search.pop(), first.run.read_state())
    assert search.peek() is None and search.exhausted


def test_a_word_fixes_a_key_and_another_budget_is_another_study(resolve: Resolve):
    sweep = resolve("optim.lr=1e-3")
    play(sweep)
    assert list(sweep.axes) == ["model.n_layers"] and {p.config.optim.lr for p in sweep.runs} == {1e-3}
    search, started = play(resolve("optim.lr=1e-3", "budget.tokens=2560"))
    assert started and len(told(search)) == 4
    assert len(search._study._storage.get_all_studies()) == 2


SLURM, RAY = "launcher=slurm", ["launcher=ray", "launcher.address=head:6379"]


@pytest.mark.parametrize(
    ("words", "search", "most"),
    [
        ([], {}, 1),
        (["launcher.slots=3"], {}, 3),
        (["launcher.slots=3"], {"parallel": 2}, 2),
        ([SLURM], {"trials": 10}, 2),
        (RAY, {"trials": 10}, 2),
        ([SLURM], {"trials": 4}, 1),
        ([SLURM, "launcher.running_jobs=3"], {"trials": 10}, 3),
        ([SLURM], {"trials": 10, "parallel": 6}, 6),
        ([SLURM, "launcher.running_jobs=3"], {"trials": 10, "parallel": 6}, 3),
        ([SLURM, "launcher.max_jobs=1"], {"trials": 10}, 1),
    ],
)
def test_no_more_are_under_way_than_have_a_place_or_than_is_asked_for(
    resolve: Resolve, words: list[str], search: dict[str, Any], most: int
):
    sweep = resolve(*words, **search)
    sweep.folder.mkdir(parents=True)
    source, out = Search(sweep), []
    while source.peek() is not None:
        out.append(source.pop())
    assert len(out) == most


# What the study is told.


def test_only_a_number_is_told_as_a_value(resolve: Resolve):
    outcomes: list[Callable[[PlannedRun], State]] = [
        finish,
        lambda planned: planned.run.update_state(state="diverged", reason="the loss is nan"),
        lambda planned: planned.run.update_state(state="oom"),
        lambda planned: planned.run.update_state(state="timeout"),
        _without_a_loss,
    ]
    search, started = play(resolve(trials=5), lambda planned: outcomes.pop(0)(planned))
    assert len(started) == 5
    assert told(search) == [TrialState.COMPLETE, *[TrialState.FAIL] * 4]
    assert search._study.get_trials()[0].values == [quality(started[0])]


def _without_a_loss(planned: PlannedRun) -> State:
    planned.run.write_record([{"run_id": planned.identity, "loss": None}])
    return planned.run.update_state(state="done")


def test_a_cell_that_cannot_be_run_is_skipped_and_counts(resolve: Resolve):
    space = {"model.n_heads": {"low": 4, "high": 8}}  # 32 is not divisible by those between
    sweep = resolve(trials=12, space=space, sampler="random")
    search, started = play(sweep)
    assert sweep.skipped and started and len(told(search)) == 12
    assert all("not divisible by model.n_heads=" in cell.reason for cell in sweep.skipped)
    manifest = read_manifest(sweep.folder)
    assert manifest and manifest.skipped == sweep.skipped and len(manifest.cells) == len(sweep.runs)
    assert manifest.axes == {"model.n_heads": [4, 8]}


def test_what_failed_is_tried_again_at_the_next_call_and_takes_no_new_trial(resolve: Resolve):
    fail = True

    def outcome(planned: PlannedRun) -> State:
        return planned.run.update_state(state="failed", reason="x") if fail and not counted else finish(planned)

    counted: list[int] = []
    search, (first, *_) = play(resolve(trials=3), lambda planned: (outcome(planned), counted.append(1))[0])
    assert told(search) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    search, started = play(resolve(trials=3))
    assert [planned.identity for planned in started] == [first.identity]
    assert told(search) == [TrialState.FAIL, *[TrialState.COMPLETE] * 3]
    assert play(resolve(trials=3))[1] == []


def test_what_was_stopped_from_outside_is_taken_up_with_the_same_values(resolve: Resolve):
    def stop(planned: PlannedRun) -> State:
        return planned.run.update_state(state="cancelled", reason="the sweep was stopped")

    search, (stopped,) = play(resolve(), stop, most=1)
    assert told(search) == [TrialState.RUNNING]
    search, started = play(resolve())
    assert started[0].run == stopped.run and len(started) == 4
    assert told(search) == [TrialState.COMPLETE] * 4


def test_two_coordinators_never_ask_for_more_than_there_are_to_be(resolve: Resolve):
    one, two = resolve(trials=5), resolve(trials=5)
    one.folder.mkdir(parents=True)
    sources = [Search(one), Search(two)]
    out: list[PlannedRun] = []
    locks = []
    for turn in range(6):
        source = sources[turn % 2]
        if (planned := source.peek()) is None:
            break
        if planned.run.is_alive(planned.run.read_state()):
            break
        out.append(source.pop())
        locks.append(planned.run.lock())
        source.ended(planned, finish(planned))
        locks[-1].close()
    assert len(out) == len({planned.identity for planned in out}) == 5
    assert told(sources[0]) == [TrialState.COMPLETE] * 5
    assert sources[0].peek() is None and sources[0].exhausted
    manifest = read_manifest(one.folder)
    assert manifest and len(manifest.cells) == 5


def test_a_torn_line_is_dropped_and_a_damaged_journal_refused(resolve: Resolve):
    sweep = resolve()
    play(sweep)
    journal = sweep.folder / JOURNAL
    whole_journal = journal.read_bytes()
    journal.write_bytes(whole_journal + b'{"op_code": 4, "wor')
    assert play(resolve())[1] == [] and journal.read_bytes().startswith(whole_journal)
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())
    journal.write_bytes(b"no JSON\n" + whole_journal)
    with pytest.raises(UserError, match=r"search\.journal cannot be read"):
        play(resolve())


def test_a_journal_is_json_and_nothing_in_it_is_unpickled(resolve: Resolve, monkeypatch: pytest.MonkeyPatch):
    import pickle

    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    sweep = resolve(objectives={"loss": "minimize", "train_flops": "minimize"}, sampler="nsga2")
    play(sweep)
    play(sweep)
    assert all(isinstance(json.loads(line), dict) for line in (sweep.folder / JOURNAL).read_text().splitlines())


def test_two_objectives_are_both_told(resolve: Resolve):
    sweep = resolve(objectives={"loss": "minimize", "train_flops": "minimize"}, trials=6)
    search, started = play(sweep)
    assert [trial.values for trial in search._study.get_trials()] == [
        [quality(planned), planned.horizon.flops] for planned in started
    ]
    best = {tuple(trial.values) for trial in search._study.best_trials}
    study = load_study([sweep.folder])
    on = study.table[frontier(study.table, "loss", "train_flops")]
    assert best == set(zip(on["loss"], on["train_flops"], strict=True))


# What was given up.


def test_a_run_that_was_given_up_is_a_row_and_stays_given_up(resolve: Resolve, small: list[str]):
    losses = iter([3.0, 4.0, 5.0, 2.0])

    def outcome(planned: PlannedRun) -> State:
        loss = next(losses)
        points(planned, loss)
        if why := search.hopeless(planned):
            return planned.run.update_state(state="cancelled", reason=why)
        return finish(planned, loss)

    sweep = resolve(prune={})
    sweep.folder.mkdir(parents=True)
    search = Search(sweep)
    while (planned := search.peek()) is not None:
        search.ended(search.pop(), outcome(planned))
    assert told(search) == [TrialState.COMPLETE] * 2 + [TrialState.PRUNED, TrialState.COMPLETE]
    assert search._study.get_trials()[2].intermediate_values == {25: 5.0}

    again, started = play(resolve(prune={}))
    assert started == [] and told(again) == told(search)
    study = load_study([sweep.folder])
    row = study.table.iloc[2]
    assert (row["state"], row["loss"]) == ("cancelled", 5.0)
    assert row["reason"].startswith("pruned at 25 % of its budget: loss 5.0000 is not among the best 1 of 3")
    assert row["tokens"] == 1280 and row["optim.lr"] == sweep.runs[2].values["optim.lr"]
    assert list(frontier(study.table, "loss", "train_flops")) == [False, False, False, True]
    given_up = sweep.runs[2]
    assert is_pending(given_up)  # a list of runs that has it as well wants it whole


# With runs that train.


@pytest.mark.slow
def test_hopeless_rates_are_stopped_early_and_the_command_succeeds(lmexp: Lmexp, tmp_path: Path, small: list[str]):
    space = {"optim.lr": {"choices": [1e-7, 2e-7, 3e-7, 1e-2]}}
    sweep_file(
        tmp_path, {"trials": 8, "space": space, "prune": {"reduction": 2, "from": 0.1}, "sampler": "random", "seed": 5}
    )
    words = [*small, "budget.tokens=51200", "evaluation.every=0.1"]
    planned = lmexp("plan", "s", *words)
    assert planned.returncode == 0 and "8 trials by random over lr" in planned.stdout
    assert json.loads(lmexp("plan", "s", *words, "--json").stdout)["at_most"]["tokens"] == 8 * 51200
    ended = lmexp("sweep", "s", *words, "--json")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    states = {run["optim.lr"]: (run["state"], run["reason"], run["tokens"]) for run in document["runs"]}
    pruned = {rate: found for rate, found in states.items() if found[0] == "cancelled"}
    assert pruned and max(pruned) < 1e-3, states
    assert all("pruned at 10 % of its budget" in found[1] and found[2] < 25_000 for found in pruned.values())
    assert "8/8" in ended.stderr and "Warning" not in ended.stderr and "[I 20" not in ended.stderr
    again = lmexp("sweep", "s", *words, "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["runs"] == document["runs"]
    assert "8/8" in again.stderr and "done before" in again.stderr


def _coordinate(file: Path, words: list[str], outputs: Path) -> None:
    run_sweep(resolve_sweep(str(file), words, outputs), Notes())


@pytest.mark.slow
def test_a_killed_coordinators_trials_are_taken_up_and_there_are_as_many_as_asked_for(small: list[str], tmp_path: Path):
    words = [*small, "launcher.slots=2", "budget.tokens=51200", "checkpoint.every=0.05"]
    file, outputs = sweep_file(tmp_path, {"trials": 5}), tmp_path / "outputs"
    process = start_process(_coordinate, file, words, outputs)
    deadline = time.monotonic() + 120
    while len(list(outputs.glob("s/*/checkpoints/last.ckpt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    sweep = resolve_sweep(str(file), words, outputs)
    left = {path.name for path in outputs.glob("s/[!.]*/")}
    states = run_sweep(sweep, Notes())
    assert [state.state for state in states] == ["done"] * 5
    names = [planned.run.name for planned in sweep.runs]
    assert left <= set(names) == {path.parent.name for path in outputs.glob("s/*/config.yaml")}
    trials = Search(resolve_sweep(str(file), words, outputs))._study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5
    for planned in sweep.runs:
        steps = [point["step"] for point in planned.run.read_curve()]
        assert steps == sorted(steps)
