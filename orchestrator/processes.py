"""Process trees on Linux: who adopts orphans, who dies with whom, and how a tree is cleared."""

from __future__ import annotations

import ctypes
import os
import select
import signal

_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def become_trial(parent: int) -> None:
    """A session of its own, death with the zygote, and the signals of a fresh process."""
    os.setsid()
    die_with(parent)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):  # SIGKILL, SIGSTOP and those of the C library
            continue
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python itself does
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent dies."""
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


_wake: list[int] = []


def watch_children() -> int:
    """A file descriptor that becomes readable when a child ends. Imports may have undone an earlier call."""
    if not _wake or _wake[0] != os.getpid():
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _wake[:] = [os.getpid(), read, write]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(_wake[2], warn_on_full_buffer=False)
    return _wake[1]


def drain(fd: int) -> None:
    """Forget what woke us."""
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


def reap() -> dict[int, tuple[int, int]]:
    """Wait status and peak memory in bytes of every child that has ended."""
    ended = {}
    try:
        while True:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if not pid:
                break
            ended[pid] = status, usage.ru_maxrss * 1024
    except ChildProcessError:
        pass
    return ended


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


def descendants() -> list[int]:
    """Every process below this one."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            children.setdefault(parent, []).append(int(name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:  # grows while it is walked
        found += children.get(pid, ())
    return found
