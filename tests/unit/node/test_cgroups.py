"""How many CPUs a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.node.shared import cgroups

ALL = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("cgroup", "groups", "expected"),
    [
        ("0::/\n", {}, ALL),
        ("0::/a\n", {"a/cpu.max": "max 100000"}, ALL),
        ("0::/a\n", {"a/cpu.max": "150000 100000"}, 1),  # whole ones
        ("0::/a\n", {"a/cpu.max": "50000 100000"}, 1),  # at least one
        ("0::/a\n", {"a/cpu.max": "6400000 50000"}, ALL),  # more than there are
        ("0::/a/b/c\n", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}, 1),  # of a group above
        ("0::/\n", {"cpu.max": "100000 100000"}, 1),  # a container that sees its own group as the root
        ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, ALL),
        ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "100000"}, 1),
        (
            "4:cpu,cpuacct:/docker/1\n0::/x\n",  # a container of version 1: its own group is the root
            {"cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            1,
        ),
        ("4:cpuacct,cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "100000"}, 1),
        ("5:cpuset:/a\n", {"cpuset/a/cpu.cfs_quota_us": "100000", "cpuset/a/cpu.cfs_period_us": "100000"}, ALL),
    ],
)
def test_the_tightest_quota_counts(tmp_path: Path, cgroup: str, groups: dict[str, str], expected: int) -> None:
    for name, text in {"proc/self/cgroup": cgroup, **{f"cgroup/{name}": text for name, text in groups.items()}}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cgroups.cpus(tmp_path / "proc", tmp_path / "cgroup") == expected


def test_two_cpus_of_a_quota_are_two(tmp_path: Path) -> None:
    """Not one for the rounding of numbers such as 0.3 / 0.1."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    assert cgroups.cpus(tmp_path, tmp_path) == min(ALL, 2)


def test_here() -> None:
    assert 1 <= cgroups.cpus() <= ALL
