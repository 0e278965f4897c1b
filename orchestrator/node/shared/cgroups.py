"""What this process may use of the machine: its control groups limit it, as a container's or a job's do.

A group's limit holds for the groups below it too, so those above ours count. Where a container hides them, the group at
the root of what it sees is its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def groups_of(controller: str, proc: Path = PROC, root: Path = GROUPS) -> Iterator[tuple[int, Path]]:
    """The version (1 or 2) and the folder of each group of this process that may have limits of this controller."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controllers if (root / controllers).is_dir() else root / controller
        group = Path(path.lstrip("/"))
        for part in (group, *group.parents):
            yield (1 if controllers else 2), base / part


def cpus(proc: Path = PROC, root: Path = GROUPS) -> int:
    """Whole CPUs that this process and its children may use at once: by affinity and by the quotas of its groups."""
    quotas = [quota for version, folder in groups_of("cpu", proc, root) if (quota := _quota(version, folder))]
    return max(1, int(min(len(os.sched_getaffinity(0)), *quotas, float("inf")) + 1e-9))


def _quota(version: int, folder: Path) -> float | None:
    """How many CPUs the time that the group gets is worth; None if it has no such limit."""
    try:
        if version == 1:
            quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        else:
            quota, period = map(int, (folder / "cpu.max").read_text().split())
    except (OSError, ValueError):  # no such group, or its quota is "max"
        return None
    return quota / period if quota > 0 and period > 0 else None
