"""Control groups of Linux, by which containers and schedulers limit the memory of a process."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def memory_groups(root: Path = ROOT) -> tuple[int, list[Path]]:
    """Return the version of control groups (1 or 2), and the folder of each group that this process is in.

    The innermost group comes first. A folder may be missing: in a container, a group can have a name from outside it.
    The list is empty if the system has no control groups.
    """
    try:
        lines = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return 2, []
    version, mount = 1, root / "sys/fs/cgroup/memory"
    group = next((path for _, controllers, path in lines if "memory" in controllers.split(",")), None)
    if group is None:
        version, mount = 2, root / "sys/fs/cgroup"
        group = next((path for number, _, path in lines if number == "0"), "/")
    parts = [PurePosixPath(group), *PurePosixPath(group).parents]
    return version, [mount / str(part).lstrip("/") for part in parts]


def memory_limits(root: Path = ROOT) -> Iterator[tuple[float, float]]:
    """Yield the limit and the use of each group (version 2) that has a limit, in bytes; file caches do not count."""
    version, folders = memory_groups(root)
    for folder in folders if version == 2 else []:
        with suppress(OSError, ValueError, StopIteration):
            limit = float((folder / "memory.max").read_text())  # ValueError: `max`, which is no limit
            lines = (folder / "memory.stat").read_text().splitlines()
            cached = next(float(line.split()[1]) for line in lines if line.startswith("inactive_file "))
            yield limit, float((folder / "memory.current").read_text()) - cached
