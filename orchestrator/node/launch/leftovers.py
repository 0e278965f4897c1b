"""What the imports of a trainer have left open or running, compared with what was there before.

A fork shares an open file with its parent, the position in it included; a fresh process would have opened its own. So
a file that is only read is opened once more in each trial. Whatever else forks would share is a reason against them.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from orchestrator.node.launch.import_watch import COPY, MAP, PIPE, PROCESS, SOCKET, TIMER
from orchestrator.node.shared import processes

_HARMLESS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_NVIDIA, CUDA = "/dev/nvidia", "/dev/nvidia-uvm"  # CUDA keeps the latter open; NVML, with which a fork is safe, others
Descriptors = dict[int, tuple[int, int]]  # by number: device and inode
_STREAMS = ("standard input", "standard output", "standard error")


class Reason(NamedTuple):
    """Why a fork would differ from a fresh process."""

    what: str
    kind: str = ""  # what `ImportWatch.line` finds the line by


class OpenFile(NamedTuple):
    """A file that is open for reading, under one or more numbers."""

    fds: tuple[int, ...]
    flags: int
    position: int

    def open(self) -> int:
        """A new descriptor. `O_NOFOLLOW` was about the file's path, and would refuse the link that stands for it."""
        return os.open(f"/proc/self/fd/{self.fds[0]}", self.flags & ~os.O_NOFOLLOW | os.O_CLOEXEC)

    def reopen(self) -> None:
        """Replace it by the same file, opened by this process, at the same position."""
        mine = self.open()
        os.lseek(mine, self.position, os.SEEK_SET)
        for fd in self.fds:
            os.dup2(mine, fd, os.get_inheritable(fd))
        os.close(mine)


def descriptors() -> Descriptors:
    """The descriptors of this process, with device and inode of each."""
    found = ((int(fd), _identity(int(fd))) for fd in os.listdir("/proc/self/fd"))
    return {fd: identity for fd, identity in found if identity is not None}  # without the one that listed them


def new(before: Descriptors, left: Descriptors) -> Descriptors:
    """What was opened since, and what earlier imports have `left` open."""
    return {
        fd: identity
        for fd, identity in descriptors().items()
        if fd > 2 and (fd not in before or left.get(fd) == identity)
    }


def find(before: Descriptors, left: Descriptors) -> tuple[list[OpenFile], list[Reason]]:
    """Files to reopen in each trial, and reasons against a fork."""
    files: list[OpenFile] = []
    now = descriptors()
    reasons = [Reason(f"replaces {_STREAMS[fd]}", COPY) for fd in range(3) if now.get(fd) != before.get(fd)]
    outputs = {before.get(1), before.get(2)}
    for fd, identity in sorted(new(before, left).items()):
        reason = Reason("keeps a copy of standard output", COPY) if identity in outputs else _reason(fd)
        if reason is not None:
            reasons.append(reason)
        elif _is_readable_file(fd):
            _add(files, fd)
    reasons += [*_unreadable(files), *_shared_maps(), *_children()]
    if any(signal.getitimer(each)[0] for each in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)):
        reasons.append(Reason("sets a timer", TIMER))
    return files, reasons


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _reason(fd: int) -> Reason | None:
    """Why forks must not share this descriptor, if they must not."""
    path, mode = os.readlink(f"/proc/self/fd/{fd}"), os.fstat(fd).st_mode
    if path in _HARMLESS or _is_place(fd) or (path.startswith(_NVIDIA) and not path.startswith(CUDA)):
        return None
    if stat.S_ISSOCK(mode):
        return Reason("leaves a socket open", SOCKET)
    if stat.S_ISFIFO(mode) and path.startswith("pipe:"):
        return Reason("leaves a pipe open", PIPE)
    if not _is_readable_file(fd) or path.startswith(f"/proc/{os.getpid()}/"):
        writable = stat.S_ISREG(mode) and _writable(fd)
        return Reason(f"leaves {path} open{' for writing' if writable else ''}", path)
    if "\nlock:" in Path(f"/proc/self/fdinfo/{fd}").read_text():
        return Reason(f"holds a lock on {path}", path)
    return None


def _is_readable_file(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and not _writable(fd) and not _is_place(fd)


def _is_place(fd: int) -> bool:
    """Whether it only names a file: nothing is read from it, and it has no position that forks could share."""
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH)


def _writable(fd: int) -> bool:
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def _add(files: list[OpenFile], fd: int) -> None:
    """Add a descriptor: to the file that it is a duplicate of, if there is one."""
    position = os.lseek(fd, 0, os.SEEK_CUR)
    for index, file in enumerate(files):
        if _identity(file.fds[0]) == _identity(fd) and _move_together(file, fd):
            files[index] = file._replace(fds=(*file.fds, fd))
            return
    files.append(OpenFile((fd,), fcntl.fcntl(fd, fcntl.F_GETFL), position))


def _move_together(file: OpenFile, fd: int) -> bool:
    """Whether the two are one open file: a change of its position shows in the other."""
    if not stat.S_ISREG(os.fstat(fd).st_mode) or os.lseek(fd, 0, os.SEEK_CUR) != file.position:
        return False
    os.lseek(file.fds[0], file.position + 1, os.SEEK_SET)
    moved = os.lseek(fd, 0, os.SEEK_CUR) == file.position + 1
    os.lseek(file.fds[0], file.position, os.SEEK_SET)
    return moved


def _unreadable(files: list[OpenFile]) -> Iterator[Reason]:
    """Files that cannot be opened again, such as one that this user must not read any more."""
    for file in files:
        try:
            os.close(file.open())
        except OSError as error:
            path = os.readlink(f"/proc/self/fd/{file.fds[0]}")
            yield Reason(f"leaves {path} open, which cannot be opened again ({error.strerror})", path)


def _shared_maps() -> Iterator[Reason]:
    with open("/proc/self/maps") as maps:
        for line in maps:
            _, access, _, _, _, *rest = line.split(maxsplit=5)
            path = rest[0].rstrip("\n") if rest else ""
            harmless = path.startswith(_NVIDIA) and not path.startswith(CUDA)
            if access[1] == "w" and access[3] == "s" and not harmless:
                of = "" if path.startswith("/dev/zero") else f" of {path}"
                yield Reason(f"leaves shared memory{of}", MAP)
                return


def _children() -> Iterator[Reason]:
    """Any child: one that has ended too, since a trial could not wait for it."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return
    names = sorted({_name(pid) for pid in processes.descendants()})
    yield Reason(f"leaves a process running ({', '.join(names)})", PROCESS)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "ended"
