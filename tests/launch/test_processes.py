"""Processes: ended with all that they hold."""

import fcntl
import multiprocessing
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from lmexp.errors import UserError
from lmexp.launch import processes
from lmexp.launch.control import MAX_WAIT_SECONDS
from tests import server
from tests.cuda_calls import recorded_cuda_calls

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
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.1)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    words = ["sh", "-c", f"{sys.executable} {tmp_path / 'stubborn.py'} {tmp_path / '.lock'} & wait"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        processes.stop_all([_Started(process)])
        with (tmp_path / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_run_has_half_a_minute_to_save_before_it_is_killed():
    assert processes.GRACE_SECONDS == 30 < MAX_WAIT_SECONDS, "a command that cancels a sweep waits for longer"


def test_one_process_is_the_worker_itself_and_several_are_torchruns():
    worker = ["-m", "lmexp.worker", "run"]
    assert processes.worker_command(Path("run"), 1) == [sys.executable, *worker]
    assert processes.worker_command(Path("run"), 1, probe=True) == [sys.executable, *worker, "--probe"]
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    assert processes.worker_command(Path("run"), 2) == [
        *torchrun, "--standalone", "--signals-to-handle=SIGTERM,SIGINT,SIGUSR2", "--nproc-per-node=2", *worker,
    ]  # fmt: skip
    assert processes.worker_command(Path("run"), 1, ["--nnodes=2"], signals="SIGTERM,SIGINT") == [
        *torchrun, "--nnodes=2", "--signals-to-handle=SIGTERM,SIGINT", "--nproc-per-node=1", *worker,
    ]  # fmt: skip
    assert processes.worker_environment(3)["OMP_NUM_THREADS"] == "3"


def test_a_job_on_a_node_starts_its_worker_without_importing_torch():
    code = "import sys, lmexp.launch.processes; print({'torch', 'pytorch_lightning', 'numpy'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_the_server_that_runs_are_forked_from_leaves_cuda_alone():
    """A process that is forked after the driver has started cannot use it; even to ask for devices may start it."""
    assert server.IS_FRESH and server.CUDA_CALLS == []
    with recorded_cuda_calls() as called:
        torch.cuda.is_available()
        torch.cuda.device_count()
    assert {"is_available", "device_count"} <= set(called), "the recorder works"


class _Started:
    """A handle on a process that is no run."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.pid = process, process.pid

    def exit_code(self) -> int | None:
        return self.process.poll()


def test_a_run_starts_from_another_server_if_its_own_was_killed(monkeypatch: pytest.MonkeyPatch):
    problems: list[Exception | None] = [EOFError(), ConnectionRefusedError(), None]

    class Fake:
        def __init__(self, **_: object) -> None: ...

        def start(self) -> None:
            if problem := problems.pop(0):
                raise problem

    monkeypatch.setattr(multiprocessing, "get_context", lambda _: SimpleNamespace(Process=Fake))
    assert isinstance(processes._fork(), Fake) and not problems
    problems[:] = [BrokenPipeError(), EOFError(), EOFError()]
    with pytest.raises(UserError, match="was killed 3 times"):
        processes._fork()


def test_a_run_whose_server_was_killed_goes_on_until_it_has_ended_itself():
    with subprocess.Popen(["sleep", "60"]) as process:
        run = object.__new__(processes._Forked)
        run._process = SimpleNamespace(exitcode=processes.UNKNOWN_CODE)  # type: ignore[assignment]
        run._child = psutil.Process(process.pid)
        assert run.exit_code() is None
        process.kill()
        process.wait()
        assert run.exit_code() == processes.UNKNOWN_CODE


INTERRUPTED = """
import os, signal, sys

class PressCtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "lmexp.train.probe":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, PressCtrlC())
import lmexp.launch.server
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


@pytest.mark.slow
def test_ctrl_c_while_the_server_of_runs_imports_shows_no_traceback_and_later_interrupts_a_run():
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, "Traceback" in ended.stderr) == (0, "True\n", False)
