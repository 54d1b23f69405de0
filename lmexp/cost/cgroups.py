"""Control groups of Linux, by which containers and schedulers limit the memory and the cores of a process."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def memory_groups(root: Path = ROOT) -> tuple[int, list[Path]]:
    """Return the version of control groups (1 or 2), and the folder of each group that limits this process's memory.

    The innermost group comes first. A folder may be missing: in a container, a group can have a name from outside it.
    The list is empty if the system has no control groups.
    """
    return _groups("memory", root)


def memory_limits(root: Path = ROOT) -> Iterator[tuple[float, float]]:
    """Yield the limit and the use of each group (version 2) that has a limit, in bytes; file caches do not count."""
    version, folders = memory_groups(root)
    for folder in folders if version == 2 else []:
        with suppress(OSError, ValueError, StopIteration):
            limit = float((folder / "memory.max").read_text())  # ValueError: `max`, which is no limit
            lines = (folder / "memory.stat").read_text().splitlines()
            cached = next(float(line.split()[1]) for line in lines if line.startswith("inactive_file "))
            yield limit, float((folder / "memory.current").read_text()) - cached


def cpu_limit(root: Path = ROOT) -> float | None:
    """Return how many cores the process may use on average, as by `docker run --cpus=2`; None if there is no limit.

    The kernel stops all threads of a group that has used its share of a period (Documentation/scheduler/sched-bwc).
    """
    version, folders = _groups("cpu", root)
    limits = []
    for folder in folders:
        with suppress(OSError, ValueError):  # ValueError: `max`, which is no limit
            if version == 2:
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if float(quota) > 0 and float(period) > 0:  # version 1 has -1 for no limit
                limits.append(float(quota) / float(period))
    return min(limits, default=None)


def _groups(controller: str, root: Path) -> tuple[int, list[Path]]:
    """Return the version of control groups that has a controller, and the folders of this process's groups."""
    try:
        lines = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return 2, []
    version, mount = 1, root / "sys/fs/cgroup" / controller
    group = next((path for _, controllers, path in lines if controller in controllers.split(",")), None)
    if group is None:
        version, mount = 2, root / "sys/fs/cgroup"
        group = next((path for number, _, path in lines if number == "0"), "/")
    parts = [PurePosixPath(group), *PurePosixPath(group).parents]
    return version, [mount / str(part).lstrip("/") for part in parts]
