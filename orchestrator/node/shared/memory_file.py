"""Files in memory, which no full disk can disturb."""

from __future__ import annotations

import ctypes
import fcntl
import os

_libc = ctypes.CDLL(None, use_errno=True)
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_PAGE = 4096
_HIGH = 200  # below most limits of open files


def create(name: str) -> int:
    """A descriptor of a new file that is written at its end. The file goes with the last process that has it open."""
    fd = os.memfd_create(name)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
    return fd


def move_up(fd: int) -> int:
    """Give an open file a high number, which what a trainer opens and closes by number does not reach; returns it."""
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    except OSError:  # the limit of open files is lower
        return fd
    os.close(fd)
    return high


def size_in_memory(fd: int) -> int:
    """The bytes of the file that have not been freed."""
    return os.fstat(fd).st_blocks * 512


def free_beginning(fd: int, end: int) -> None:
    """Give back the memory of the file's first bytes. Its size stays; some kernels cannot do it."""
    size = ctypes.c_long(end // _PAGE * _PAGE)
    _libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_long(0), size)
