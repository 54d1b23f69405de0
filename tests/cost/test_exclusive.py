"""Runs on one device notice each other, whichever command started them and whatever index the device has."""

from pathlib import Path

import pytest

from lmexp.cost.exclusive import Exclusive, lock_devices
from tests.cost.recording import Frame, Play


def locks(*devices: str, folder: Path) -> Exclusive:
    return Exclusive(devices, folder=folder)


def test_a_run_alone_was_exclusive(tmp_path: Path):
    assert locks("cpu", folder=tmp_path).release()
    assert locks("cpu", folder=tmp_path).release()


def test_runs_that_overlap_know_it_both(tmp_path: Path):
    first, second = locks("0", folder=tmp_path), locks("0", "1", folder=tmp_path)
    assert not second.release()
    assert not first.release()
    assert locks("0", folder=tmp_path).release()  # the mark is of the past


def test_a_run_that_locks_again_still_knows_of_one_that_came_meanwhile(tmp_path: Path):
    first, second = locks("0", folder=tmp_path), locks("0", folder=tmp_path)
    first.release()
    again = locks("0", folder=tmp_path)  # for its next milestone
    assert not again.release()
    second.release()
    assert locks("0", folder=tmp_path).release()


def test_runs_on_different_devices_do_not_disturb_each_other(tmp_path: Path):
    first, second = locks("0", folder=tmp_path), locks("1", folder=tmp_path)
    assert second.release() and first.release()


def test_another_program_is_remembered_after_it_has_ended(tmp_path: Path):
    answers = iter([False, True, False])
    lock = Exclusive(["0"], lambda: next(answers), tmp_path)
    lock.look()
    lock.look()
    assert not lock.release()


def test_a_gpu_is_the_same_under_every_index(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lmexp.cost.exclusive.tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    nothing = [Frame()]
    play({"GPU-a": nothing, "GPU-b": nothing}, ["GPU-a"])
    first = lock_devices("cuda")
    play({"GPU-a": nothing, "GPU-b": nothing}, ["GPU-b"])  # device 0 of another job is another GPU
    elsewhere = lock_devices("cuda")
    assert elsewhere.release()
    play({"GPU-a": nothing, "GPU-b": nothing}, ["GPU-b", "GPU-a"])
    second = lock_devices("cuda", count=2)
    assert not second.release() and not first.release()


def test_a_program_that_holds_no_lock_is_seen_through_nvml(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lmexp.cost.exclusive.tempfile.gettempdir", lambda: str(tmp_path))
    recording = play({"GPU-a": [Frame(), Frame(pids=[2**22 + 1, 2**22 + 2]), Frame()]}, ["GPU-a"])
    lock = lock_devices("cuda")
    recording.now = 1
    lock.look()  # as the heartbeat does
    recording.now = 2
    assert not lock.release()
