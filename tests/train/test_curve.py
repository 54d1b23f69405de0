"""The curve: which points it has, what is in them, and when a run has diverged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lmexp.config.schema import RunConfig
from lmexp.train.curve import Curve, Diverged
from tests.train.parts import Parts, make_parts

Compose = Callable[..., RunConfig]


@pytest.fixture
def parts(config: Compose, tmp_path: Path) -> Parts:
    return make_parts(config("trainer.log_every=5", "divergence.multiple=1.5", "divergence.share=0.25"), tmp_path)


def after_step(parts: Parts, loss: float = 5.0) -> None:
    parts.step(loss)
    parts.curve.on_step_end(parts.trainer, parts.task)


def test_the_first_step_every_fifth_and_the_last_are_points(parts: Parts):
    for step in range(1, 21):
        after_step(parts, loss=10.0 - step / 10)
    assert parts.points("step") == [1, 5, 10, 15, 20]
    assert parts.points("train_loss") == pytest.approx([9.9, 9.5, 9.0, 8.5, 8.0])
    assert parts.points("flops") == [2.0 * tokens for tokens in parts.points("tokens")]
    assert parts.curve.train_loss == pytest.approx(8.0)


def test_the_loss_of_a_step_is_forgotten_after_it_also_without_a_point(parts: Parts):
    after_step(parts)
    parts.step()
    parts.curve.on_step_end(parts.trainer, parts.task)  # step 2 is no point
    assert parts.task.step_loss is None and parts.points("step") == [1]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_has_diverged_and_is_not_written(parts: Parts, loss: float):
    with pytest.raises(Diverged, match="at step 1"):
        after_step(parts, loss)
    assert parts.run.read_curve() == []


def test_numbers_that_are_not_finite_are_left_out_of_a_point(parts: Parts):
    parts.step()
    parts.curve.write(parts.trainer, train_loss=1.0, grad_norm=float("inf"), lr=None)
    (point,) = parts.run.read_curve()
    assert "grad_norm" not in point and "lr" not in point and point["train_loss"] == 1.0


def test_a_resumed_run_remembers_since_when_its_loss_is_too_high(config: Compose, tmp_path: Path):
    words = ("trainer.log_every=1", "divergence.multiple=1.5", "divergence.share=0.25")
    first = make_parts(config(*words), tmp_path / "first")
    for loss in (1.0, 2.0, 2.0):
        after_step(first, loss)
    second = make_parts(config(*words), tmp_path / "second")
    second.progress.load_state_dict(first.progress.state_dict())
    second.curve.load_state_dict(first.curve.state_dict())
    for _ in range(3):
        after_step(second, 2.0)
    with pytest.raises(Diverged, match=r"1\.5 times its first value \(2 > 1\.5 x 1\) for 25 % of the budget"):
        after_step(second, 2.0)  # step 7: five steps of 20 after step 2


def test_other_processes_than_the_first_write_nothing(parts: Parts, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(type(parts.trainer), "is_global_zero", property(lambda trainer: False))
    after_step(parts)
    assert parts.run.read_curve() == [] and parts.curve.train_loss == 5.0


def test_a_curve_without_signals_of_its_own_gets_some(parts: Parts):
    curve = Curve(parts.progress, parts.meter, parts.config, parts.run, parts.curve.mirror, 2.0)
    assert curve.signals.requested is None
