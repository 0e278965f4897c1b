"""The GPUs of this machine: which there are, which are taken, and a lock for each one that a sweep uses."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO

LOCKS = Path("/tmp/orchestrate-gpus")  # the same for all users, whatever their TMPDIR
BUSY_MEMORY = 500  # MiB in use that make a GPU visibly busy, where the driver names no process


@dataclass(frozen=True)
class Gpu:
    """One physical GPU."""

    index: str
    uuid: str
    used: int  # MiB


@dataclass
class Claim:
    """The GPUs a local sweep holds; the locks go with the process, however it ends."""

    ids: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()  # in words: "GPU 1 (locked by pid 77)"
    _locks: list[IO[str]] = field(default_factory=list)

    def release(self) -> None:
        for lock in self._locks:
            lock.close()
        self._locks.clear()


@lru_cache(maxsize=1)
def listed() -> tuple[Gpu, ...]:
    """All GPUs of the machine, as the driver tells; none where there is no driver."""
    rows = _query("--query-gpu=index,uuid,memory.used")
    return tuple(Gpu(row[0], row[1], int(row[2]) if row[2].isdigit() else 0) for row in rows if len(row) == 3)


def busy_uuids() -> dict[str, str]:
    """GPU UUID -> pid of a process that computes on it."""
    return {row[0]: row[1] for row in _query("--query-compute-apps=gpu_uuid,pid") if len(row) > 1}


def uuids(ids: Sequence[str]) -> tuple[str, ...]:
    """UUIDs of GPUs named by index or UUID; empty where the driver does not tell."""
    if not ids:
        return ()
    known = {gpu.index: gpu.uuid for gpu in listed()}
    found = tuple(known.get(name, name if name.startswith(("GPU-", "MIG-")) else "") for name in ids)
    return found if all(found) else ()


def claim() -> Claim:
    """Lock every GPU that is visible, unlocked and idle. Honours CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = _visible(listed(), visible)
    busy = busy_uuids() if gpus else {}
    ids, left_out, locks = [], [], []
    for name, gpu in gpus:
        lock, owner = _lock(gpu.uuid)
        if lock is None:
            left_out.append(f"GPU {gpu.index} (another sweep, {owner})")
        elif gpu.uuid in busy:
            lock.close()
            left_out.append(f"GPU {gpu.index} (in use by pid {busy[gpu.uuid]})")
        elif gpu.used > BUSY_MEMORY:
            lock.close()
            left_out.append(f"GPU {gpu.index} ({gpu.used} MiB in use)")
        else:
            ids.append(name)
            locks.append(lock)
    return Claim(tuple(ids), tuple(left_out), locks)


def _visible(gpus: Sequence[Gpu], visible: str | None) -> list[tuple[str, Gpu]]:
    """(name as CUDA_VISIBLE_DEVICES wants it, GPU), in that variable's order where it is set."""
    if visible is None:
        return [(gpu.index, gpu) for gpu in gpus]
    chosen: list[tuple[str, Gpu]] = []
    for name in filter(None, (part.strip() for part in visible.split(","))):
        match = [gpu for gpu in gpus if gpu.index == name or gpu.uuid.startswith(name)]
        if len(match) != 1:
            break  # CUDA ignores what stands behind a name it does not know
        chosen.append((name, match[0]))
    return chosen


def _lock(uuid: str) -> tuple[IO[str] | None, str]:
    """An exclusive lock on the GPU, or None and who holds it. Shared by all users of the machine."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    _open_to_all(LOCKS, 0o1777)
    path = LOCKS / f"{uuid}.lock"
    try:
        handle = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8")
        _open_to_all(path, 0o644)
    except PermissionError:
        handle = open(path, encoding="utf-8")  # noqa: SIM115 - a colleague's file: lock it as it is
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = handle.read().strip()
        handle.close()
        return None, owner or "starting up"
    if handle.writable():
        handle.truncate(0)
        handle.write(f"pid {os.getpid()}")
        handle.flush()
    return handle, ""


def _open_to_all(path: Path, mode: int) -> None:
    if path.stat().st_uid == os.getuid():
        path.chmod(mode)


def _query(what: str) -> list[list[str]]:
    """Rows that `nvidia-smi` prints, or none."""
    command = ["nvidia-smi", what, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
