"""Memory of this node: how much is left, and which trial has to go before the kernel chooses.

Every runner watches its own trial. While memory is short, each leaves in a folder of the node what its trial holds, and
the one whose trial holds most ends it. A look costs two small files as long as there is room.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.files import replacing, scratch
from orchestrator.node.shared import processes

SHARE, MOST = 0.05, 4 * 2**30  # of the memory, and bytes: less than both is what must stay free
SHORT = 4  # times that: trials are measured from here on
_OOM_KILLS = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_SELDOM, _OFTEN = 1.0, 0.25  # seconds between two looks
_STALE = 10.0  # seconds: whoever wrote so long ago is no more


@dataclass(frozen=True)
class Room:
    """Where memory is limited, in bytes."""

    total: int
    free: int
    of: str = "this node"

    @property
    def reserve(self) -> int:
        return int(min(SHARE * self.total, MOST))


def room(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> Room:
    """The tightest of the node and the control groups that this process is in."""
    fields = _fields(proc / "meminfo")
    total, free = fields.get("MemTotal:", 0) * 1024, fields.get("MemAvailable:", 0) * 1024
    return min([Room(total, free), *_cgroup_rooms(proc, cgroups)], key=lambda room: room.free)


def _cgroup_rooms(proc: Path, root: Path) -> Iterator[Room]:
    """Each group from our own up that has a limit; of version 1 and 2."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base = root / controllers
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        group = Path(path.lstrip("/"))
        for folder in (base / part for part in (group, *group.parents)):
            limit, used = (_number(folder / name) for name in names)
            if limit is None or used is None or limit > 2**60:
                continue
            stat = _fields(folder / "memory.stat")
            cache = stat.get("inactive_file", 0) + stat.get("active_file", 0)  # given back when it is needed
            yield Room(limit, max(0, limit - max(0, used - cache)), "its control group")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def oom_kills() -> int:
    """How many processes the kernel has killed for memory on this node so far, in control groups too."""
    try:
        with open("/proc/vmstat", "rb", buffering=0) as file:
            found = _OOM_KILLS.search(file.read())
    except OSError:
        return 0
    return int(found[1]) if found else 0


def held(zygote: int) -> int:
    """Bytes that everything below this process holds; what several share is divided among them."""
    pids = processes.descendants(zygote)
    return sum(_fields(Path(f"/proc/{pid}/smaps_rollup")).get("Pss:", 0) for pid in pids) * 1024


class MemoryWatch:
    """Looks now and then whether one trial must end, so that the node lives."""

    def __init__(self) -> None:
        self._trial: int | None = None
        self._zygote: int | None = None
        self._due = 0.0
        self._told = False

    def begin(self, trial: int) -> None:
        """The trial's process exists; its parent adopts all its orphans."""
        self._trial, self._zygote = trial, None

    def guilty(self, now: float) -> str | None:
        """The numbers, if this trial has to go: memory is out, and no other one that we know of holds more."""
        if self._trial is None or now < self._due:
            return None
        if self._zygote is None:
            self._zygote = processes.parent(self._trial)
            self._folder = scratch() / "memory"
            self._file = self._folder / str(self._trial)
        left = room()
        if left.free >= SHORT * left.reserve:
            self._due = now + _SELDOM
            self.close()
            return None
        self._due = now + _OFTEN
        mine, told = held(self._zygote) if self._zygote else 0, self._told
        self._told = self._tell(mine)
        if not told or left.free >= left.reserve or mine < left.reserve:  # the others get time to say what they hold
            return None
        others = self._others()
        if any(other > mine for other in others):
            return None
        return f"its processes held {_gb(mine)}, the most of {len(others) + 1} trial(s) here, " + (
            f"when {_gb(left.free)} of the {_gb(left.total)} of {left.of} were free"
        )

    def close(self) -> None:
        """Forget what this trial held."""
        if self._told:
            self._file.unlink(missing_ok=True)
            self._told = False

    def _tell(self, size: int) -> bool:
        """Whether others can read it now."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._file) as draft:
                draft.write_text(str(size))
        except OSError:
            return False
        return True

    def _others(self) -> list[int]:
        """What the other trials of this node hold."""
        found = []
        for path in self._folder.iterdir():
            try:
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink(missing_ok=True)
                elif path != self._file and not path.suffix:
                    found.append(int(path.read_text()))
            except (OSError, ValueError):  # gone, while we looked
                continue
        return found


def _gb(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
