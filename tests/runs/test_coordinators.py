"""Coordinators are seen by whoever may read a sweep's folder."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from lmexp.runs import coordinators
from lmexp.runs.coordinators import coordinating, has_coordinator
from lmexp.runs.directory import RunDir
from tests.runs.test_mirrors import config_for

NOBODY = 65534
LOOK = """
import encodings.utf_8_sig, json, os, sys  # nobody cannot read a Python in a home folder
from pathlib import Path
from lmexp.runs.status import status
from lmexp.runs.coordinators import LOCK, has_coordinator

os.setgroups([])
os.setgid({nobody})
os.setuid({nobody})
folder = Path(sys.argv[1])
assert not any(os.access(file, os.W_OK) for file in (folder, folder / LOCK, *folder.glob("*/.lock")))
print(json.dumps([has_coordinator(folder), [[row["state"], row["reason"]] for row in status(folder)]]))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A sweep's folder that everybody may read; pytest's own folders are their owner's alone."""
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        Path(root).chmod(0o755)
        made = Path(root) / "s"
        made.mkdir(mode=0o755)
        yield made


def a_readers_look(folder: Path) -> list[object]:
    looked = subprocess.run(
        [sys.executable, "-c", LOOK.format(nobody=NOBODY), str(folder)], capture_output=True, text=True, timeout=60
    )
    assert looked.returncode == 0, looked.stderr
    return json.loads(looked.stdout)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_who_may_only_read_sees_what_runs_and_who_coordinates(folder: Path) -> None:
    trained, lost = (RunDir.create(folder / name, config_for(name="none")) for name in ("a-1", "b-2"))
    trained.update_state(state="running", heartbeat=time.time())
    lost.update_state(state="running", heartbeat=time.time() - 3600)
    (lost.path / ".lock").touch()
    (trained.path / ".lock").touch()
    runs = ["running", None]
    with coordinating(folder):
        assert a_readers_look(folder) == [True, [runs, ["failed", "its process is gone; it will be started again"]]]
    assert a_readers_look(folder) == [False, [runs, ["failed", "its process is gone; run the sweep again to resume"]]]


def test_a_folder_has_a_coordinator_while_one_is_at_work(folder: Path) -> None:
    assert not has_coordinator(folder)
    with coordinating(folder), coordinating(folder):
        assert has_coordinator(folder)
    assert not has_coordinator(folder)


def test_a_process_that_looks_for_coordinators_is_not_taken_for_one(folder: Path) -> None:
    with coordinating(folder):
        pass
    with (folder / coordinators.LOCK).open("r+") as file, ThreadPoolExecutor() as pool:
        fcntl.flock(file, fcntl.LOCK_EX)  # as another look has it for a moment
        seen = pool.submit(has_coordinator, folder)
        time.sleep(coordinators.CHECK_SECONDS)
        fcntl.flock(file, fcntl.LOCK_UN)
        assert not seen.result()


@pytest.fixture
def nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFSv4 does: a lock is shared only with who may read the file, and had alone only by who may write it."""
    really = fcntl.flock

    def flock(file: IO[str], operation: int) -> None:
        if not (file.writable() if operation & fcntl.LOCK_EX else file.readable()):
            raise OSError(errno.EBADF, "Bad file descriptor")
        really(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def test_over_nfs_coordinators_are_seen_by_who_may_write_and_not_known_to_others(
    folder: Path, nfs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with coordinating(folder), coordinating(folder):
        assert has_coordinator(folder)
        monkeypatch.setattr(coordinators, "_open", Path.open)
        assert not has_coordinator(folder)
