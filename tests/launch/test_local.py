"""Processes: ended with all that they hold."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from lmexp.launch import local

STUBBORN = """
import fcntl, signal, sys, threading, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(8):
    threading.Thread(target=time.sleep, args=(600,)).start()
held = bytearray(b"x") * 500_000_000
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("ready", flush=True)
time.sleep(600)
"""


def test_a_run_that_had_to_be_killed_has_let_go_of_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local, "GRACE_SECONDS", 0.1)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    words = ["sh", "-c", f"{sys.executable} {tmp_path / 'stubborn.py'} {tmp_path / '.lock'} & wait"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        local.stop_all([_Started(process)])
        with (tmp_path / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class _Started:
    """A handle on a process that is no run."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.pid = process, process.pid

    def exit_code(self) -> int | None:
        return self.process.poll()
