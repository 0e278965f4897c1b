"""Whether a process can be forked safely, judged by its threads and open files after its imports."""

from __future__ import annotations

import os
import sys

# Threads that a process may have when it is forked. A thread missing here costs a slower start; one that should not be
# here, a trial that hangs for ever. jemalloc's (in pyarrow, so in pandas) restarts in the child: 150 of 150 forks
# computed with pandas and it.
HARMLESS_THREADS = frozenset({"jemalloc_bg_thd"})


def unsafe_to_fork(proc: str = "/proc/self") -> str | None:
    """Why a fork of this process might hang or fail; None if nothing indicates that it would."""
    names = {_thread_name(proc, tid) for tid in os.listdir(f"{proc}/task") if int(tid) != os.getpid()}
    harmful = sorted(names - HARMLESS_THREADS)
    if harmful:
        return f"it starts threads when it is imported ({', '.join(harmful)})"
    torch = sys.modules.get("torch")
    if (torch is not None and torch.cuda.is_initialized()) or _has_cuda_files(proc):
        return "it initialises CUDA when it is imported"
    return None


def _thread_name(proc: str, tid: str) -> str:
    try:
        with open(f"{proc}/task/{tid}/comm") as file:
            return file.read().strip()
    except OSError:  # it has ended since it was listed
        return "short-lived"


def _has_cuda_files(proc: str) -> bool:
    """CUDA keeps nvidia-uvm open. NVML, with which a fork is safe, opens the other devices only."""
    for fd in os.listdir(f"{proc}/fd"):
        try:
            if os.readlink(f"{proc}/fd/{fd}").startswith("/dev/nvidia-uvm"):
                return True
        except OSError:
            continue
    return False
