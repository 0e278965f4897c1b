"""Process trees on Linux: leaving a parent, adopting orphans, dying with a parent, and killing a whole tree."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import ctypes
import os
import select
import signal
import time
from collections.abc import Iterable

from orchestrator.ports import ENDING

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
_PATIENCE = 4.0  # seconds; torch's helper waits 2 s for others before it ends
_shielded: set[int] = set()  # signals that `shield` has blocked
_TORCHS_HELPER = b"torch_shm_manager"
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36


def leave_parent(inherited: Iterable[int]) -> None:
    """Go on in a child whose parent exits, so that it is no child of the process that started this interpreter.

    `inherited`: descriptors that came through the exec; programs that are started from here do not get them.
    """
    for fd in inherited:
        os.set_inheritable(fd, False)
    if os.fork():
        os._exit(0)
    _reset_signals()


def _reset_signals() -> None:
    """Handle signals as a fresh process does: a Ray worker blocks SIGINT, and children inherit what it ignores."""
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # as Python itself does: a write raises instead
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own."""
    _prctl(_SET_CHILD_SUBREAPER, 1)


def shield() -> None:
    """Let signals wait that a machine sends to all processes before it ends them: a trial has its grace to save.

    It would die with the processes above it. They need no signal; they end with the worker.
    """
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, ENDING)
    _shielded.update(set(ENDING) - before)


def become_trial(parent: int) -> None:
    """Lead a new session, and die with the zygote. Signal handlers that the trainer's module has set stay."""
    os.setsid()
    die_with(parent)
    signal.set_wakeup_fd(-1)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # in C: `signal.signal` makes a trial copy some 45 pages
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _shielded)


def die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent dies."""
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


_wakeup: list[int] = []  # the process that made the pipe, and the pipe's two ends


def watch_children() -> int:
    """A descriptor that becomes readable when a child exits. Call it again after imports, which may undo it."""
    inherited: list[int] = []
    if not _wakeup or _wakeup[0] != os.getpid():
        inherited = _wakeup[1:]
        _wakeup[:] = [os.getpid(), *os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(_wakeup[2], warn_on_full_buffer=False)
    for fd in inherited:
        os.close(fd)
    return _wakeup[1]


def drain(fd: int) -> None:
    """Empty the descriptor of `watch_children`."""
    try:
        os.read(fd, 4096)
    except BlockingIOError:
        pass


def reap() -> tuple[dict[int, tuple[int, int]], bool]:
    """Wait status and peak memory in bytes of every child that has exited; whether no child is left."""
    ended: dict[int, tuple[int, int]] = {}
    try:
        while True:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if not pid:
                return ended, False
            ended[pid] = status, usage.ru_maxrss * 1024
    except ChildProcessError:
        return ended, True


def kill_descendants(wakeup: int, moment: float = 0.0) -> None:
    """Kill every descendant until none is left. We adopt their orphans, so "no child" means "no descendant".

    Each has a moment (seconds) to end by itself: one that reads what a trial has written to a pipe, for instance.
    Helpers clean up once those that they serve are gone; they are killed only if that takes longer than `_PATIENCE`.
    """
    began = time.monotonic()
    while True:
        drain(wakeup)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        waited = time.monotonic() - began
        left = descendants() if waited >= moment else []
        others = [pid for pid in left if not _is_helper(pid)]
        for pid in left if waited >= moment + _PATIENCE else others:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        # not longer while there are others: a process may have forked while we listed them
        select.select([wakeup], [], [], 0.01 if others else 0.1)


def _is_helper(pid: int) -> bool:
    """Whether a process removes what others have left in /dev/shm: of `multiprocessing`, of joblib, or of torch."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read()
    except OSError:
        return False
    return b"resource_tracker import main" in command or os.path.basename(command.split(b"\0")[0]) == _TORCHS_HELPER


def flush_c_streams() -> None:
    """Write what C libraries have printed so far, or left in files that they have open."""
    _libc.fflush(None)


def parent(pid: int) -> int | None:
    """The parent of a process; None if the process does not exist."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def descendants(of: int | None = None) -> list[int]:
    """All descendants of a process; of this one if left out."""
    children: dict[int | None, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(parent(int(name)), []).append(int(name))
    found = list(children.get(of or os.getpid(), ()))
    for pid in found:  # the list grows while it is walked
        found += children.get(pid, ())
    return found
