"""How a process's memory lies on pages, which decides what a fork of it costs."""

from __future__ import annotations

import ctypes
import math
import re
import time

_libc = ctypes.CDLL(None, use_errno=True)
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25
_HUGE_PAGE, _BYTES_PER_CALL = 2**21, 2**24
_SIZES = (24, 40, 56, 72, 88, 104, 120, 136, 200, 264, 392, 520, 1032)  # bytes of common allocations
_IN_A_ROW, _MAX_BLOCKS = 50, 4_000
_ANONYMOUS = re.compile(r"(\w+)-(\w+) rw-p \w+ \w+:\w+ 0\s+(\[heap\]|\[anon.*\])?$")  # writable memory without a file


def fill_heap_gaps() -> None:
    """Allocate the free blocks that lie between used ones, so that children allocate new blocks side by side.

    Each such block is on a page of its own, which a child would have to copy: some 80 pages, of 1,000 in all. The
    blocks are never freed.
    """
    if not hasattr(_libc, "gnu_get_libc_version"):
        return
    malloc = _libc.malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    for size in _SIZES:
        last, in_a_row = 0, 0
        for _ in range(_MAX_BLOCKS):
            address = malloc(size) or 0
            in_a_row = in_a_row + 1 if address - last == size + 8 else 0
            last = address
            if in_a_row == _IN_A_ROW:  # no gap of this size is left
                break


def collapse_into_huge_pages(patience: float = math.inf) -> bool:
    """Move this process's anonymous memory into huge pages where the kernel can: a fork then copies 4 times faster.

    With torch loaded, a fork with its exit took 15 ms before and 4 ms after. Older kernels refuse, which does no harm.
    Returns False if it gave up after `patience` seconds: in a virtual machine that asks its host for memory, this takes
    20 times as long.
    """
    deadline = time.monotonic() + patience
    madvise = _libc.madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with open("/proc/self/maps") as file:
        found = [_ANONYMOUS.match(line) for line in file]
    for area in filter(None, found):
        start, end = -(-int(area[1], 16) // _HUGE_PAGE) * _HUGE_PAGE, int(area[2], 16) // _HUGE_PAGE * _HUGE_PAGE
        for address in range(start, end, _BYTES_PER_CALL):
            if time.monotonic() > deadline:
                return False
            for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
                madvise(address, min(_BYTES_PER_CALL, end - address), advice)
    return True
