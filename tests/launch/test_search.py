"""Searches: what is proposed, what the study is told, who is given up, and what a killed coordinator leaves."""

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
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from optuna.trial import TrialState

from lmexp.analysis.frontier import frontier
from lmexp.analysis.table import load_study
from lmexp.config.sweeps import Choices, Interval, SearchAxis, SearchSpec
from lmexp.errors import UserError
from lmexp.launch.halving import Halving
from lmexp.launch.pending import is_pending
from lmexp.launch.queue import run_sweep
from lmexp.launch.search import JOURNAL, Search, _distribution, _value
from lmexp.resolve import search as resolving
from lmexp.resolve.planned import PlannedRun, Sweep
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir
from lmexp.runs.manifest import read_manifest
from lmexp.runs.record import identity_columns
from lmexp.runs.state import State
from tests.command import start_process
from tests.conftest import Lmexp
from tests.launch.test_queue import Notes

RATE = {"low": 1e-4, "high": 1e-1, "log": True}
SPACE = {"optim.lr": RATE, "model.n_layers": {"low": 1, "high": 3}}
Resolve = Callable[..., Sweep]


def sweep_file(folder: Path, search: dict[str, Any], **beside: Any) -> Path:
    file = folder / "sweeps" / "s.yaml"
    file.parent.mkdir(exist_ok=True)
    sweep = {"question": "Which?", "search": {"trials": 4, "space": SPACE, **search}, **beside}
    file.write_text("# A search\n# @package _global_\n" + yaml.safe_dump({"sweep": sweep}))
    return file


@pytest.fixture
def resolve(small: list[str], tmp_path: Path) -> Resolve:
    """Resolve a search over learning rate and depth, with changes to its spec and with words."""

    def resolved(*words: str, **search: Any) -> Sweep:
        is_local = not any(word.startswith("launcher=") for word in words)
        shared = [word for word in small if is_local or not word.startswith("launcher.")]
        return resolve_sweep(str(sweep_file(tmp_path, search)), [*shared, *words], tmp_path / "outputs")

    return resolved


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


# What is refused.

REFUSED: list[tuple[dict[str, Any], list[str], str]] = [
    ({"sampler": "tpa"}, [], "sweep.search.sampler=tpa: input should be 'tpe', 'random' or 'nsga2'"),
    ({"objectives": {"los": "minimize"}}, [], "los is no column of numbers. Did you mean 'loss'"),
    ({"objectives": {"slug": "minimize"}}, [], "slug is no column of numbers"),
    ({"space": {"optim.lr": {"low": 0, "high": 1, "log": True}}}, [], "log needs a low above 0"),
    ({"space": {"optim.lr": {"low": 2, "high": 1}}}, [], "optim.lr.*low=2 must be less than high=1"),
    ({"space": {"optim.lr": {"choices": []}}}, [], "at least 1 item"),
    ({"space": {"optim.lr": [1, 2]}}, [], "write {low: ..., high: ...} or {choices: "),
    ({"space": {"optim.lr": {"low": 1, "hihg": 2, "high": 3}}}, [], "hihg is not a key of the config"),
    ({"space": {"optim.rl": {"low": 1, "high": 2}}}, [], "optim.rl is not a key of the config"),
    ({"space": {"precision": {"choices": ["fp32", "fp31"]}}}, [], "no precision 'fp31'"),
    ({"space": {"optim.lr": {"low": -1.0, "high": 1.0}}}, [], "optim.lr=-1.0: input should be greater than 0"),
    ({"space": {"data.validation": {"low": 0.1, "high": 0.5}}}, [], "would be scored on different texts"),
    ({"space": {"model.n_heads": {"low": 5, "high": 7}}}, [], "no corner .* not divisible by model.n_heads"),
    ({}, ["optim.lr=1e-3,1e-2"], "a search chooses its own values"),
    ({}, ["optim.lr=1e-3", "model.n_layers=1"], "nothing is left to search"),
    ({"prune": {"from": 0.1}}, ["evaluation.every=0.5"], "set evaluation.every=0.1 or less, or prune.from=0.5"),
    ({"prune": {}, "objectives": {"train_flops": "minimize"}}, [], "single objective, one of loss"),
    ({"prune": {}, "objectives": {"loss": "minimize", "tokens": "minimize"}}, [], "single objective"),
]


@pytest.mark.parametrize(("search", "words", "said"), REFUSED)
def test_a_search_that_makes_no_sense_is_refused(resolve: Resolve, search: dict, words: list[str], said: str):
    with pytest.raises(UserError, match=said):
        resolve(*words, **search)


def test_a_search_for_the_loss_per_token_stays_with_one_tokenizer(small: list[str], tmp_path: Path):
    words = [word for word in small if not word.startswith("tokenizer")]
    search = {"space": {"tokenizer": {"choices": ["byte", "char"]}}}
    with pytest.raises(UserError, match="loss does not compare between tokenizers; search for bits_per_byte"):
        resolve_sweep(str(sweep_file(tmp_path, search)), words, tmp_path / "outputs")
    search |= {"objectives": {"bits_per_byte": "minimize"}}
    assert resolve_sweep(str(sweep_file(tmp_path, search)), words, tmp_path / "outputs").search


def test_a_search_beside_a_grid_is_refused_and_so_is_one_without_optuna(
    resolve: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for beside in {"grid": {"seed": [1]}}, {"seeds": 2}:
        with pytest.raises(UserError, match=f"search stands alone, and {next(iter(beside))} is there too"):
            resolve_sweep(str(sweep_file(tmp_path, {}, **beside)), [], tmp_path / "outputs")
    monkeypatch.setattr(resolving, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"a search needs optuna: pip install 'lmexp\[optuna\]'"):
        resolve()


@pytest.mark.slow
def test_a_search_is_refused_to_a_wandb_agent_before_anything_starts(lmexp: Lmexp, tmp_path: Path, small: list[str]):
    sweep_file(tmp_path, {"trials": 1})
    result = lmexp("sweep", "s", *small, "logger=wandb", WANDB_SWEEP_ID="sw12", WANDB_RUN_ID="agent42")
    assert result.returncode == 2 and "a W&B agent's run is one run; this command searches" in result.stderr
    assert not list((tmp_path / "outputs").glob("s/*"))


# Who is given up.


def points(planned: PlannedRun, *losses: float, every: float = 0.25) -> None:
    """Write a curve: training points, and an evaluation at each share."""
    if not planned.run.path.exists():
        RunDir.create(planned.run.path, planned.config)
    done = sum("loss" in point for point in planned.run.read_curve())
    for index, loss in enumerate(losses, done + 1):
        tokens = round(index * every * (planned.horizon.tokens or 0))
        planned.run.append_point({"step": index, "tokens": tokens, "seconds": 2.0 * index * every, "train_loss": 9.0})
        planned.run.append_point({"step": index, "tokens": tokens, "seconds": 2.0 * index * every, "loss": loss})


@pytest.fixture
def runs(small: list[str], tmp_path: Path) -> list[PlannedRun]:
    return resolve_sweep(None, [*small, "seed=range(9)"], tmp_path / "outputs", name="s").runs


def halving(direction: str = "minimize", objective: str = "loss", **prune: Any) -> Halving:
    spec = {"trials": 9, "space": SPACE, "objectives": {objective: direction}, "prune": prune}
    return Halving(SearchSpec.model_validate(spec))


def test_the_rungs_are_powers_of_the_reduction_below_the_whole_budget():
    assert halving().rungs == [0.25, 0.75]
    assert halving(reduction=2, **{"from": 0.25}).rungs == [0.25, 0.5]
    assert halving(reduction=3, **{"from": 1 / 9}).rungs == pytest.approx([1 / 9, 1 / 3])


def test_nobody_is_given_up_before_enough_have_reached_the_rung(runs: list[PlannedRun]):
    judge = halving()
    points(runs[0], 9.0)
    points(runs[1], 1.0)
    assert judge.verdict(runs[0], runs) is None
    points(runs[2], 2.0)
    assert judge.verdict(runs[2], runs) == (
        "pruned at 25 % of its budget: loss 2.0000 is not among the best 1 of 3 (1.0000 would be)"
    )
    assert judge.verdict(runs[1], runs) is None
    points(runs[0], 9.0)  # the first at its rung went on; as its curve grows it is held against those that came later
    assert "loss 9.0000 is not among" in (judge.verdict(runs[0], runs) or "")


def test_the_best_third_goes_on_ties_included_and_each_rung_has_its_own(runs: list[PlannedRun]):
    judge = halving()
    for planned, loss in zip(runs[:6], [1, 2, 2, 4, 5, 6], strict=True):
        points(planned, loss)
    assert [judge.verdict(planned, runs) is None for planned in runs[:6]] == [True, True, True, False, False, False]
    for planned, loss in zip(runs[:2], [5, 1], strict=True):
        points(planned, loss, loss)  # at 0.5 and 0.75
    assert [judge.verdict(planned, runs) for planned in runs[:2]] == [None, None]  # two are not three
    assert judge.values(runs[0]) == [1, 5]  # at a rung counts what was scored there, not later
    points(runs[2], 3, 3)
    assert "at 75 %" in (judge.verdict(runs[2], runs) or "")


def test_a_curve_that_has_not_grown_is_not_read_again(runs: list[PlannedRun], monkeypatch: pytest.MonkeyPatch):
    judge = halving()
    for planned, loss in zip(runs[:3], [1.0, 2.0, 3.0], strict=True):
        points(planned, loss)
    assert judge.verdict(runs[2], runs)
    monkeypatch.setattr(RunDir, "read_curve", lambda run: pytest.fail("read again"))
    for _ in range(3):
        assert judge.verdict(runs[2], runs) is None


def test_accuracy_is_better_when_higher_and_a_budget_of_seconds_has_its_rungs_in_time(small: list[str], tmp_path: Path):
    words = [*small, "seed=range(3)", "budget.tokens=null", "budget.seconds=2"]
    runs = resolve_sweep(None, words, tmp_path / "outputs", name="s").runs
    judge = halving("maximize", "accuracy")
    for planned, accuracy in zip(runs, [0.5, 0.6, 0.7], strict=True):
        RunDir.create(planned.run.path, planned.config)
        planned.run.append_point({"tokens": 1, "seconds": 0.49, "accuracy": 0.1})  # before the rung
        assert judge.values(planned) == []
        planned.run.append_point({"tokens": 2, "seconds": 0.51, "accuracy": accuracy})
        assert judge.values(planned) == [accuracy]
    runs[0].run.append_point({"tokens": 3, "seconds": 0.6, "train_loss": 3.0})
    runs[2].run.append_point({"tokens": 3, "seconds": 0.6, "train_loss": 3.0})
    assert judge.verdict(runs[2], runs) is None
    assert "accuracy 0.5000 is not among the best 1 of 3 (0.7000 would be)" in (judge.verdict(runs[0], runs) or "")


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
