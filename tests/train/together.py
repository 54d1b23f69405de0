"""Several processes that train one run, forked from the tests' server.

torchrun would import torch and Lightning once more for each of them, which takes longer than all the rest. Tests of
torchrun itself are in test_stopping.py and in tests/launch.
"""

import os
import socket
from pathlib import Path

import torch

from lmexp.train import worker
from tests.command import start_process


def train_together(path: Path, processes: int = 2, timeout: float = 120) -> None:
    """Train the run in the directory `path`; fails unless all processes end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [start_process(_become_rank, path, rank, processes, port) for rank in range(processes)]
    for process in ranks:
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
    assert [process.exitcode for process in ranks] == [0] * processes, (path / "log.txt").read_text()


def _become_rank(path: Path, rank: int, processes: int, port: int) -> None:
    """Train as the process with this rank, with what torchrun would tell it."""
    log = os.open(path / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "GROUP_RANK": 0}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": 1}
    os.environ.update({name: str(value) for name, value in told.items()})
    worker.leave(worker.main(path))
