"""Watch the memory of this node, and end a trial before the kernel chooses which process to kill.

Each trial is watched by the process that supervises it. While memory is short, each of these writes what its trial uses
into a folder of the node, and the one whose trial uses most ends that trial. While there is room, a look costs two
small files.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator import naming
from orchestrator.files import replacing, scratch
from orchestrator.node.shared import cgroups, processes

RESERVE_SHARE, MAX_RESERVE = 0.05, 4 * 2**30  # what must stay free: this share of the memory, at most so many bytes
SHORT = 4  # memory is short below so many reserves: trials are then measured
_OOM_KILLS = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_INTERVAL, _SHORT_INTERVAL = 1.0, 0.25  # seconds between two looks; while memory is short
_MAX_AGE = 10.0  # seconds; a file that is older comes from a process that has died


@dataclass(frozen=True)
class Room:
    """The memory of this node or of one control group, in bytes."""

    total: int
    free: int
    of: str = "this node"

    @property
    def reserve(self) -> int:
        """What must stay free."""
        return int(min(RESERVE_SHARE * self.total, MAX_RESERVE))


class NodeMemory:
    """What the kernel says of this node's memory."""

    def __init__(self, proc: Path = cgroups.PROC, groups: Path = cgroups.GROUPS) -> None:
        self._proc, self._cgroups = proc, groups

    def room(self) -> Room:
        """The node or the control group of this process that has the least memory left."""
        fields = _fields(self._proc / "meminfo")
        total, free = fields.get("MemTotal:", 0) * 1024, fields.get("MemAvailable:", 0) * 1024
        return min([Room(total, free), *self._cgroup_rooms()], key=lambda room: room.free)

    def _cgroup_rooms(self) -> Iterator[Room]:
        """This process's control groups that have a limit, and those above them."""
        for version, folder in cgroups.groups_of("memory", self._proc, self._cgroups):
            limit, used = (_number(folder / name) for name in _CGROUP_FILES[version])
            if limit is None or used is None or limit > 2**60:
                continue
            stat = _fields(folder / "memory.stat")
            cache = stat.get("inactive_file", 0) + stat.get("active_file", 0)  # the kernel frees it when needed
            yield Room(limit, max(0, limit - max(0, used - cache)), "its control group")

    def oom_kills(self) -> int:
        """How many processes the kernel has killed for memory on this node so far, also for control groups' limits."""
        try:
            with open(self._proc / "vmstat", "rb", buffering=0) as file:
                found = _OOM_KILLS.search(file.read())
        except OSError:
            return 0
        return int(found[1]) if found else 0

    def used_below(self, pid: int) -> int:
        """Bytes that the descendants of a process use; memory that several processes share is split among them."""
        pids = processes.descendants(pid)
        return sum(_fields(self._proc / str(each) / "smaps_rollup").get("Pss:", 0) for each in pids) * 1024


_CGROUP_FILES = {  # by version: the limit, and what is used
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    2: ("memory.max", "memory.current"),
}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such group, or its limit is "max"
        return None


def _fields(path: Path) -> dict[str, int]:
    """The file's lines that are a name and a number."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


class MemoryWatch:
    """Decides now and then whether one trial must end so that the node survives."""

    def __init__(self, node: NodeMemory) -> None:
        self._node = node
        self._trial: int | None = None
        self._zygote: int | None = None
        self._due = 0.0
        self._published = False

    def begin(self, trial: int) -> None:
        """The trial's process exists. Its parent, the zygote, adopts all its orphans."""
        self._trial, self._zygote = trial, None

    def must_end(self, now: float) -> str | None:
        """The evidence, if this trial must end: memory has run out, and no other known trial uses more."""
        if self._trial is None or now < self._due:
            return None
        if self._zygote is None:
            self._zygote = processes.parent(self._trial)
        room = self._node.room()
        if room.free >= SHORT * room.reserve:
            self._due = now + _INTERVAL
            self.close()
            return None
        self._due = now + _SHORT_INTERVAL
        used, published = self._node.used_below(self._zygote) if self._zygote else 0, self._published
        self._published = self._publish(used)
        if not published or room.free >= room.reserve or used < room.reserve:
            return None  # also in the first round, so that the other trials' use gets known
        others = self._others()
        if any(other > used for other in others):
            return None
        return f"its processes held {_gb(used)}, the most of {naming.count(len(others) + 1, 'trial')} here, " + (
            f"when {_gb(room.free)} of the {_gb(room.total)} of {room.of} were free"
        )

    def close(self) -> None:
        """Delete the file that tells the others what this trial uses."""
        if self._published:
            self._file.unlink(missing_ok=True)
            self._published = False

    def _publish(self, size: int) -> bool:
        """Write what this trial uses where the others read it; whether that worked."""
        try:
            self._folder = scratch() / "memory"
            self._file = self._folder / str(self._trial)
            self._folder.mkdir(exist_ok=True)
            with replacing(self._file) as draft:
                draft.write_text(str(size))
        except OSError:
            return False
        return True

    def _others(self) -> list[int]:
        """What the other trials of this node use."""
        found = []
        for path in self._folder.iterdir():
            try:
                if abs(time.time() - path.stat().st_mtime) > _MAX_AGE:  # newer than now: the clock was set back
                    path.unlink(missing_ok=True)
                elif path != self._file and not path.suffix:
                    found.append(int(path.read_text()))
            except (OSError, ValueError):  # deleted since it was listed
                continue
        return found


def _gb(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
