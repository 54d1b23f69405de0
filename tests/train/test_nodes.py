"""A run on two nodes, which are emulated: each has a torchrun and a /tmp of its own."""

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lmexp.cost.exclusive import Exclusive
from lmexp.launch.processes import worker_command
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir

pytestmark = pytest.mark.slow

NODES = 2


@pytest.mark.parametrize("busy_node", [None, 1])
def test_a_run_is_alone_if_it_has_the_devices_of_all_its_nodes_to_itself(
    small: list[str], tmp_path: Path, busy_node: int | None
):
    words = [word for word in small if not word.startswith("launcher.")]
    words += ["launcher=slurm", f"trainer.num_nodes={NODES}", "trainer.accelerator=cpu"]
    (planned,) = resolve_sweep(None, words, tmp_path / "outputs").runs
    run = RunDir.create(planned.run.path, planned.config)
    temporary = [tmp_path / f"tmp-{node}" for node in range(NODES)]
    for folder in temporary:
        folder.mkdir()
    others = [] if busy_node is None else [Exclusive(["cpu"], folder=temporary[busy_node])]
    record = train(run, temporary)
    for other in others:
        other.release()
    assert (record["world_size"], record["exclusive"]) == (NODES, busy_node is None)


def train(run: RunDir, temporary: list[Path]) -> dict[str, Any]:
    """Train with one process on each node; return the record."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = []
    for node, folder in enumerate(temporary):
        meeting = [f"--nnodes={NODES}", f"--node-rank={node}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        environment = {**os.environ, "TMPDIR": str(folder)}
        command = worker_command(run.path, 1, meeting)
        nodes.append(
            subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    try:
        said = [node.communicate(timeout=200)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], said
    (record,) = run.read_record()
    return record
