"""Process trees on Linux: who adopts orphans, who dies with whom, and how a tree is cleared."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import ctypes
import math
import os
import re
import resource
import select
import signal
import time
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36
_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25
_HUGE, _PIECE = 2**21, 2**24
_SIZES = (24, 40, 56, 72, 88, 104, 120, 136, 200, 264, 392, 520, 1032)  # bytes of common allocations
_IN_A_ROW, _MOST_GAPS = 50, 4_000
_PRIVATE = re.compile(r"(\w+)-(\w+) rw-p \w+ \w+:\w+ 0\s+(\[heap\]|\[anon.*\])?$")  # memory without a file


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def fresh_signals() -> None:
    """The signals of a fresh process: a Ray worker blocks SIGINT, and what it ignores is inherited."""
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python itself does
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def become_trial(parent: int) -> None:
    """A session of its own, and death with the zygote. Handlers that the trainer's module set stay."""
    os.setsid()
    die_with(parent)
    signal.set_wakeup_fd(-1)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # the plain one: `signal.signal` costs a trial some 45 pages


class ProcessSettings(NamedTuple):
    """How a process stands with the kernel, and all that it starts."""

    nice: int
    oom: int  # what the kernel adds to its badness when memory runs out
    cpus: frozenset[int]
    umask: int
    limits: tuple[tuple[int, tuple[int, int]], ...]


def process_settings() -> ProcessSettings:
    """Of this process."""
    with open("/proc/self/oom_score_adj") as file:
        oom = int(file.read())
    with open("/proc/self/status") as file:
        umask = next(int(line.split()[1], 8) for line in file if line.startswith("Umask"))
    limits = tuple((number, resource.getrlimit(number)) for number in _LIMITS)
    return ProcessSettings(os.getpriority(os.PRIO_PROCESS, 0), oom, frozenset(os.sched_getaffinity(0)), umask, limits)


def apply_settings(wanted: ProcessSettings) -> None:
    """Stand so from now on. Ray gives its workers less than a coordinator has, and more open files."""
    os.umask(wanted.umask)
    os.sched_setaffinity(0, wanted.cpus)
    with contextlib.suppress(PermissionError, ValueError):  # a better standing than ours: never so for a worker
        for number, limit in wanted.limits:
            resource.setrlimit(number, limit)
        os.setpriority(os.PRIO_PROCESS, 0, wanted.nice)
    go_first(wanted.oom)


def go_first(oom: int = 300) -> None:
    """When memory runs out, before the coordinator: the kernel may end a second process while the first still goes."""
    with open("/proc/self/oom_score_adj", "r+") as file:
        if int(file.read()) < oom:
            file.seek(0)
            file.write(str(oom))


def fill_gaps() -> None:
    """Use up the C library's free pieces between what is in use, so that children allocate side by side.

    Each piece is on a page of its own that a child would have to copy: some 80 of them, of 1,000 in all.
    """
    if not hasattr(_libc, "gnu_get_libc_version"):
        return
    malloc = _libc.malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    for size in _SIZES:
        last, in_a_row = 0, 0
        for _ in range(_MOST_GAPS):
            at = malloc(size) or 0
            in_a_row = in_a_row + 1 if at - last == size + 8 else 0
            last = at
            if in_a_row == _IN_A_ROW:
                break


def gather_pages(patience: float = math.inf) -> bool:
    """Put this process's own memory into huge pages, as far as the kernel can: a fork then copies 4 times faster.

    With torch loaded, a fork with its exit took 15 ms before and 4 ms after. Older kernels refuse; that is fine. False
    if it was left after `patience` seconds: a virtual machine that asks its host for memory takes 20 times as long.
    """
    until = time.monotonic() + patience
    madvise = _libc.madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with open("/proc/self/maps") as file:
        found = [_PRIVATE.match(line) for line in file]
    for area in filter(None, found):
        start, end = -(-int(area[1], 16) // _HUGE) * _HUGE, int(area[2], 16) // _HUGE * _HUGE
        for piece in range(start, end, _PIECE):
            if time.monotonic() > until:
                return False
            for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
                madvise(piece, min(_PIECE, end - piece), advice)
    return True


def die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent dies."""
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


_wake: list[int] = []


def watch_children() -> int:
    """A file descriptor that becomes readable when a child ends. Imports may have undone an earlier call."""
    inherited: list[int] = []
    if not _wake or _wake[0] != os.getpid():
        inherited = _wake[1:]
        _wake[:] = [os.getpid(), *os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(_wake[2], warn_on_full_buffer=False)
    for fd in inherited:
        os.close(fd)
    return _wake[1]


def drain(fd: int) -> None:
    """Forget what woke us."""
    try:
        os.read(fd, 4096)
    except BlockingIOError:
        pass


def reap() -> tuple[dict[int, tuple[int, int]], bool]:
    """Wait status and peak memory in bytes of every child that has ended; whether no child is left."""
    ended: dict[int, tuple[int, int]] = {}
    try:
        while True:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if not pid:
                return ended, False
            ended[pid] = status, usage.ru_maxrss * 1024
    except ChildProcessError:
        return ended, True


def clear(wake: int) -> None:
    """Kill every descendant until none is left: orphans become our children, so "no child" means just that."""
    while True:
        drain(wake)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        select.select([wake], [], [], 0.01)  # again soon: a process may have forked while we looked


def parent(pid: int) -> int | None:
    """The parent of a process; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def descendants(of: int | None = None) -> list[int]:
    """Every process below this one, or below another."""
    children: dict[int | None, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(parent(int(name)), []).append(int(name))
    found = list(children.get(of or os.getpid(), ()))
    for pid in found:  # grows while it is walked
        found += children.get(pid, ())
    return found
