"""Saving during training: when last.ckpt is written, and what a signal does."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lmexp.config.schema import RunConfig
from lmexp.train.checkpoint import last_checkpoint
from lmexp.train.saving import Saving
from lmexp.train.stopping import Stopped
from tests.train.parts import Parts, make_parts


@pytest.fixture
def parts(config: Callable[..., RunConfig], tmp_path: Path) -> Parts:
    return make_parts(config(), tmp_path, steps=4)


@pytest.fixture
def saved(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps after which a checkpoint was written; it holds nothing else."""
    steps: list[int] = []

    def write(file: Path, weights_only: bool = False) -> None:
        steps.append(parts.progress.steps)
        Path(file).write_text(str(parts.progress.steps))

    monkeypatch.setattr(parts.trainer, "save_checkpoint", write)
    return steps


def saving_of(parts: Parts, every: float) -> Saving:
    parts.run.append_point({"step": 0})  # a curve to flush
    return Saving(parts.progress, parts.meter, parts.run, parts.signals, every)


def test_a_checkpoint_is_written_at_each_share_but_not_after_the_last_step(parts: Parts, saved: list[int]):
    saving = saving_of(parts, 0.5)
    for _ in range(4):
        parts.step()
        saving.on_step_end(parts.trainer, parts.task)
    assert saved == [2]
    assert [file.name for file in parts.run.checkpoints.iterdir()] == ["last.ckpt"], "the draft was renamed"


def test_a_signal_saves_at_once_and_stops_the_run_after_the_step(parts: Parts, saved: list[int]):
    saving = saving_of(parts, 1.0)
    parts.step()
    parts.signals.requested = "preempted"
    with pytest.raises(Stopped, match="preempted after step 1") as stopped:
        saving.on_step_end(parts.trainer, parts.task)
    assert stopped.value.outcome == "preempted"
    assert saved == [1] and last_checkpoint(parts.run).read_text() == "1"
    assert parts.signals.ignored, "a second signal would end the run before its state is written"


def test_after_the_last_step_a_signal_does_not_stop_the_run(parts: Parts, saved: list[int]):
    saving = saving_of(parts, 1.0)
    for _ in range(4):
        parts.step()
    parts.signals.requested = "cancelled"
    saving.on_step_end(parts.trainer, parts.task)
    assert saved == []


def test_from_the_start_of_training_on_a_signal_waits_for_the_step(parts: Parts):
    parts.signals.start()
    assert not parts.signals.only_recorded
    saving_of(parts, 1.0).on_train_start(parts.trainer, parts.task)
    assert parts.signals.only_recorded


def test_lightnings_own_counters_are_not_kept(parts: Parts):
    content = {"loops": {"fit_loop": 1}, "state_dict": {}}
    saving_of(parts, 1.0).on_save_checkpoint(parts.trainer, parts.task, content)
    assert content == {"state_dict": {}}
