"""Control groups: which folders belong to this process, and what memory they leave to it."""

from pathlib import Path

import pytest

from lmexp.cost import device
from lmexp.cost.cgroups import cpu_limit, memory_groups, memory_limits


def machine(root: Path, groups: str) -> Path:
    """Make a file system in which this process is in `groups`, as /proc/self/cgroup has them."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    return root


def limited(folder: Path, limit: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 7\n")


@pytest.mark.parametrize(
    ("groups", "version", "folders"),
    [
        ("0::/a/b\n", 2, ["a/b", "a", ""]),
        ("0::/\n", 2, [""]),
        ("5:cpu:/\n4:memory:/a\n0::/\n", 1, ["memory/a", "memory"]),
        ("4:cpu,memory:/a:b\n", 1, ["memory/a:b", "memory"]),
    ],
)
def test_the_groups_of_a_process_come_from_the_inside_out(tmp_path: Path, groups: str, version: int, folders: list):
    mount = tmp_path / "sys/fs/cgroup"
    assert memory_groups(machine(tmp_path, groups)) == (version, [mount / folder for folder in folders])


def test_a_system_without_control_groups_has_no_group_and_no_limit(tmp_path: Path):
    assert memory_groups(tmp_path)[1] == [] and list(memory_limits(tmp_path)) == []


def test_every_group_that_has_a_limit_counts_and_file_caches_do_not(tmp_path: Path):
    root = machine(tmp_path, "0::/a/b/c\n")
    limited(root / "sys/fs/cgroup/a/b/c", "1000", 600, 100)
    limited(root / "sys/fs/cgroup/a/b", "max", 900, 0)
    limited(root / "sys/fs/cgroup/a", "5000", 4800, 300)
    assert list(memory_limits(root)) == [(1000, 500), (5000, 4500)]


def test_limits_of_version_1_are_not_read_from_files_of_version_2(tmp_path: Path):
    root = machine(tmp_path, "4:memory:/a\n")
    limited(root / "sys/fs/cgroup/memory/a", "1000", 600, 100)
    assert list(memory_limits(root)) == []


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000", "cpu.max": "400000 100000"}, 1.5),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {}, None),
        ("1:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}, 0.5),
        ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_the_smallest_limit_of_all_groups_says_how_many_cores_there_are(
    tmp_path: Path, groups: str, files: dict[str, str], limit: float | None
):
    root = machine(tmp_path, groups)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert cpu_limit(root) == limit


@pytest.mark.parametrize(("limit", "cores"), [(None, 8), (2.0, 2), (1.5, 2), (0.3, 1), (64.0, 8)])
def test_a_container_has_the_cores_of_its_limit(monkeypatch: pytest.MonkeyPatch, limit: float | None, cores: int):
    monkeypatch.setattr(device, "cpu_limit", lambda: limit)
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert device.cores() == cores
