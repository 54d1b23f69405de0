"""A Slurm of a few emulated nodes on this machine, as root, for the tests: up in seconds, and gone without a trace.

Controller, nodes and munge live in one temporary folder and on ports of their own, and whoever has SLURM_CONF in the
environment finds them, so that a Slurm that the machine may have is left alone. There are no cgroups and no accounting:
memory is scheduled but not enforced, and sacct knows nothing.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
CONFIG = """
ClusterName=lmexp
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits as long as its credential is good: 120 s by default
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
KillWait=10
JobRequeue=1
DefMemPerCPU=500
"""


def missing() -> str | None:
    """Return why there can be no Slurm here, or None; Debian's packages are installed where they are missing."""
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    if all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged"))):
        return None
    if not shutil.which("apt-get"):
        return "Slurm is not installed, and there is no apt-get to install it with"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", *words], env=environment, capture_output=True, text=True)
        if done.returncode:
            return f"apt-get {words[0]} failed: {done.stderr.strip().splitlines()[-1:]}"
    return None


@contextmanager
def slurm(folder: Path, nodes: int = 2, cpus: int = 2, memory_mb: int = 8000) -> Iterator[None]:
    """Bring a Slurm up in `folder`, which its clients find through the environment, and take it down."""
    # The nodes are called as they can be reached: every 127.x.y.z is this machine, without a line in /etc/hosts.
    host = socket.gethostname().split(".")[0]
    names = [f"127.0.0.{number}" for number in range(1, nodes + 1)]
    port, *ports = _free_ports(1 + nodes)
    lines = [CONFIG.format(host=host, port=port, folder=folder)]
    for name, its in zip(names, ports, strict=True):
        (folder / f"spool-{name}").mkdir()
        lines.append(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={its} CPUs={cpus} RealMemory={memory_mb}\n"
        )
    lines.append("PartitionName=main Nodes=ALL Default=YES MaxTime=1:00:00 State=UP\n")
    (folder / "state").mkdir()
    (folder / "slurm.conf").write_text("".join(lines))
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        daemons.append(_munge(folder))
        _until((folder / "munge.socket").exists, "munged")
        daemons.append(_start(folder, "slurmctld", "-D"))
        daemons += [_start(folder, "slurmd", "-D", "-N", name) for name in names]
        _until(lambda: len(_run("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split()) == nodes, "the nodes")
        yield
    finally:
        _run("scancel", "--user", "root")
        with suppress(TimeoutError):
            _until(lambda: not _run("squeue", "-h"), "the jobs' end")
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


def _munge(folder: Path) -> subprocess.Popen[bytes]:
    key = folder / "munge.key"
    key.touch(mode=0o400)
    key.write_bytes(os.urandom(128))
    files = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
    words = [f"--{name}={folder / file}" for name, file in files.items()]
    # By force: temporary folders are more private than munge thinks good.
    return _start(folder, "munged", "--foreground", "--force", f"--key-file={key}", *words)


def _start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    with (folder / f"{words[0]}.out").open("ab") as output:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)


def _run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def _until(true: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Slurm: {what} did not come within {seconds:g} s")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
