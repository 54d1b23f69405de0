"""Runs on one device know of each other, whoever started them."""

from pathlib import Path

from lmexp.cost.exclusive import Exclusive


def test_a_run_alone_was_exclusive(tmp_path: Path):
    assert Exclusive("cpu", tmp_path).release()
    assert Exclusive("cpu", tmp_path).release()


def test_runs_that_overlap_know_it_both(tmp_path: Path):
    first, second = Exclusive("0", tmp_path), Exclusive("0,1", tmp_path)
    assert not second.release()
    assert not first.release()
    assert Exclusive("0", tmp_path).release()  # the mark is of the past


def test_runs_on_different_devices_do_not_disturb_each_other(tmp_path: Path):
    first, second = Exclusive("0", tmp_path), Exclusive("1", tmp_path)
    assert second.release() and first.release()
