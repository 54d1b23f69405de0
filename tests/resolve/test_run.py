"""From a config to a run: its name, its directory, and what is said of it before it starts."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmexp.config.identity import ids_of
from lmexp.cost.accounting import Accounting
from lmexp.errors import UserError
from lmexp.resolve.planned import Sweep
from lmexp.resolve.sweep import resolve_runs, resolve_sweep
from lmexp.runs.directory import RunDir
from lmexp.runs.origin import code_version
from lmexp.train.worker import check_identity

Resolve = Callable[..., Sweep]
GRID = "sweep:\n  grid:\n    model.n_layers: [1, 2]\n    optim.lr: [0.001, 0.0003]\n  seeds: 2\n"


@pytest.fixture
def resolve(small: list[str], tmp_path: Path) -> Resolve:
    file = tmp_path / "sweeps" / "s.yaml"
    file.parent.mkdir()
    file.write_text(f"# Depth and rate\n# @package _global_\n{GRID}")
    return lambda *words: resolve_sweep(str(file), [*small, *words], tmp_path / "outputs")


def test_the_name_of_a_run_depends_on_its_own_values_alone(resolve: Resolve):
    whole = {planned.identity: planned.run.name for planned in resolve().runs}
    narrow = resolve("model.n_layers=2", "optim.lr=0.0003", "seed=1").runs
    assert [planned.run.name for planned in narrow] == [f"n_layers2-lr3e-4-seed1-{narrow[0].identity}"]
    assert whole[narrow[0].identity] == narrow[0].run.name
    wide = {planned.identity: planned.run.name for planned in resolve("model.n_layers=2,1,3").runs}
    assert len(wide) == 12 and whole.items() <= wide.items()


def test_a_run_without_values_is_named_after_its_model_and_precision(small: list[str], tmp_path: Path):
    (planned,) = resolve_sweep(None, small, tmp_path / "outputs").runs
    assert planned.run.name == f"gpt_nano-fp32-{planned.identity}"


def test_a_run_keeps_the_directory_that_an_earlier_sweep_gave_it(resolve: Resolve, small: list[str], tmp_path: Path):
    (first,) = resolve_sweep(None, [*small, "model.n_layers=2", "optim.lr=0.0003", "seed=1"], tmp_path / "outputs").runs
    RunDir.create(first.run.path, first.config)
    again = {planned.identity: planned.run.path for planned in resolve().runs}
    assert again[first.identity] == first.run.path and first.run.path.parent.name == "train"


def test_resuming_under_other_code_is_said_before_anything_starts(resolve: Resolve):
    planned, done, fresh = resolve("seed=0", "optim.lr=0.001").runs[0], *resolve("optim.lr=0.0003").runs[:2]
    for each, state in ((planned, "cancelled"), (done, "oom"), (fresh, "cancelled")):
        RunDir.create(each.run.path, each.config).update_state(state=state, attempts=1, code="source@0 python==3")
        each.run.checkpoints.mkdir(exist_ok=True)
        (each.run.checkpoints / "last.ckpt").write_text("weights")
    fresh.run.update_state(code=code_version())
    said = [warning for warning in resolve().warnings if "other code or packages" in warning]
    assert said == [
        f"{planned.run.name} resumes under other code or packages than it began with; its record will name both"
    ]
    assert resolve_runs(planned.run.path.parent, [planned.run]).warnings == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.accelerator=cpu", "hardware=h100_sxm"], "hardware=h100_sxm is no CPU"),
        (["init.run=nobody"], "nobody"),
        (["model.d_model=60000", "model.n_heads=1"], "GB"),
    ],
)
def test_what_this_machine_cannot_run_is_refused(small: list[str], tmp_path: Path, words: list[str], said: str):
    with pytest.raises(UserError, match=said):
        resolve_sweep(None, [*small, *words], tmp_path / "outputs")


def test_a_run_that_an_earlier_version_named_is_not_trained_again(small: list[str], tmp_path: Path):
    words = [*small, "budget.tokens=1_000_000"]
    (now,) = resolve_sweep(None, words, tmp_path / "outputs").runs
    identity, earlier = ids_of(now.config)
    assert now.identity == identity
    named = now.config.run.model_copy(update={"id": earlier})
    RunDir.create(now.run.path.with_name(f"old-{earlier}"), now.config.model_copy(update={"run": named}))
    (found,) = resolve_sweep(None, words, tmp_path / "outputs").runs
    assert (found.identity, found.run.path.name) == (earlier, f"old-{earlier}")
    check_identity(found.config)


PRIVATE = ("privacy.epsilon=3", "budget.tokens=4000")


@pytest.mark.slow(3)
def test_a_plan_refuses_a_delta_that_is_too_small_for_the_accountant_as_a_run_does(small: list[str], tmp_path: Path):
    (planned,) = resolve_sweep(None, [*small, *PRIVATE], tmp_path / "outputs").runs
    steps = planned.horizon.steps
    assert steps is not None
    with pytest.raises(UserError) as refused:
        resolve_sweep(None, [*small, *PRIVATE, "privacy.delta=1e-300"], tmp_path / "outputs")
    with pytest.raises(UserError) as at_the_start:
        Accounting(epsilon=3.0, delta=1e-300, samples=500, sample_rate=0.01).noise_multiplier(steps)
    assert str(refused.value) == str(at_the_start.value)
    assert "privacy.delta=1e-300 is too small: Opacus cannot compute epsilon" in str(refused.value)


def test_runs_without_privacy_are_resolved_without_opacus(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "opacus", None)  # an import of it fails
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    assert resolve_sweep(None, [*small, "privacy.delta=1e-300"], tmp_path / "outputs").runs
