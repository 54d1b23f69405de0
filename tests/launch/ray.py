"""A Ray cluster of two nodes on this machine, for the tests; its nodes can be killed and completed again."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest


class RayCluster:
    """A head with one core, and a second node with two, and with one `other`; they are gone with the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._nodes = folder, {}
        self._ports = _free_ports(3)
        self.address = f"127.0.0.1:{self._ports[0]}"

    def complete(self) -> None:
        """Start the nodes that are missing, and wait until they are there."""
        gcs, client, agent = self._ports
        self._start("head", "--head", f"--port={gcs}", f"--ray-client-server-port={client}", "--num-cpus=1",
                    f"--dashboard-agent-listen-port={agent}", "--include-dashboard=false")  # fmt: skip
        until(lambda: _answers(gcs), self.said)
        self._start("second", f"--address={self.address}", "--num-cpus=2", '--resources={"other": 1}')
        import ray

        ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
        until(lambda: sum(node["Alive"] for node in ray.nodes()) == 2, self.said)
        ray.shutdown()

    def raylet(self, name: str) -> psutil.Process:
        """Return the process that is a node of the cluster."""
        children = psutil.Process(self._nodes[name].pid).children(recursive=True)
        return next(child for child in children if child.name() == "raylet")

    def kill(self, name: str) -> None:
        """Have a node gone in an instant, and leave what it had started to itself."""
        self.raylet(name).kill()
        self._nodes[name].wait(30)

    def remove(self) -> None:
        """End every process of the cluster."""
        trees = [
            process
            for node in self._nodes.values()
            if node.poll() is None
            for process in [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        ]
        for process in trees:
            with suppress(psutil.Error):
                process.kill()
        for node in self._nodes.values():
            node.wait(30)

    def said(self) -> str:
        return "".join(file.read_text() for file in self._folder.glob("*.log"))

    def _start(self, name: str, *words: str) -> None:
        if name in self._nodes and self._nodes[name].poll() is None:
            return
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        command += ["--object-store-memory=80000000", *words]
        command += ["--temp-dir", str(self._folder)] if name == "head" else []
        with (self._folder / f"{name}.log").open("ab") as log:
            self._nodes[name] = subprocess.Popen(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _answers(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def until(what: Callable[[], bool], said: Callable[[], str] = str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"it did not come to pass: {said()}"
        time.sleep(0.1)


@contextmanager
def ray_nodes() -> Iterator[RayCluster]:
    """Give a cluster whose nodes `complete` starts, and end it."""
    # Ray keeps Unix sockets in its folder, whose paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    cluster = RayCluster(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        try:
            yield cluster
        finally:
            cluster.remove()
            shutil.rmtree(folder, ignore_errors=True)
