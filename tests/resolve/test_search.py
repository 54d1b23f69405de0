"""What a search is refused for, before anything starts."""

from pathlib import Path
from typing import Any

import pytest

from lmexp.errors import UserError
from lmexp.resolve import search as resolving
from lmexp.resolve.sweep import resolve_sweep
from tests.conftest import Lmexp
from tests.launch.searches import Resolve, resolve, sweep_file

__all__ = ["resolve"]  # the fixture

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
    ({"prune": {}}, ["schedule=wsd", "budget.milestones=[0.5]"], "goes back on its curve after each milestone"),
    ({"prune": {"by": "predicted"}, "objectives": {"accuracy": "maximize"}}, [], "its objective is {loss: minimize}"),
    ({"prune": {"by": "foretold"}}, [], "prune.by=foretold: input should be 'measured' or 'predicted'"),
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
        with pytest.raises(UserError, match=f"chooses its cells itself, so it cannot have {next(iter(beside))} too"):
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
