"""Settings that a process passes on to its children: priority, out-of-memory score, CPUs, umask, resource limits."""

from __future__ import annotations

import contextlib
import os
import resource
from typing import NamedTuple

_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_OOM_SCORE = "/proc/self/oom_score_adj"


class ProcessSettings(NamedTuple):
    """What a copy of a shared zygote takes over from its worker."""

    nice: int
    oom_score_adj: int  # added to the kernel's score of this process when it chooses one to kill for memory
    cpus: frozenset[int]
    umask: int
    limits: tuple[tuple[int, tuple[int, int]], ...]

    def with_changes(self, before: ProcessSettings, after: ProcessSettings) -> ProcessSettings:
        """These settings, but for those that something has changed from `before` to `after`."""
        cpus = self.cpus if after.cpus == before.cpus else after.cpus
        umask = self.umask if after.umask == before.umask else after.umask
        limits = tuple({**dict(self.limits), **dict(set(after.limits) - set(before.limits))}.items())
        nice = min(19, self.nice + after.nice - before.nice)  # `os.nice` adds to what a process has
        return self._replace(nice=nice, cpus=cpus, umask=umask, limits=limits)


def current_settings() -> ProcessSettings:
    """The settings of this process."""
    with open(_OOM_SCORE) as file:
        oom_score_adj = int(file.read())
    with open("/proc/self/status") as file:
        umask = next(int(line.split()[1], 8) for line in file if line.startswith("Umask"))
    limits = tuple((number, resource.getrlimit(number)) for number in _LIMITS)
    nice, cpus = os.getpriority(os.PRIO_PROCESS, 0), frozenset(os.sched_getaffinity(0))
    return ProcessSettings(nice, oom_score_adj, cpus, umask, limits)


def apply_settings(settings: ProcessSettings) -> None:
    """Give this process these settings. A Ray worker has a lower priority and a higher file limit."""
    os.umask(settings.umask)
    os.sched_setaffinity(0, settings.cpus)
    with contextlib.suppress(PermissionError, ValueError):  # only root may raise them; a worker's are never higher
        for number, limit in settings.limits:
            resource.setrlimit(number, limit)
        os.setpriority(os.PRIO_PROCESS, 0, settings.nice)
    raise_oom_score(settings.oom_score_adj)


def raise_oom_score(minimum: int = 300) -> None:
    """Have the kernel kill this process before the coordinator when memory runs out.

    The coordinator needs the distance: the kernel may choose a second process while the first one is still exiting.
    """
    with open(_OOM_SCORE, "r+") as file:
        if int(file.read()) < minimum:
            file.seek(0)
            file.write(str(minimum))
