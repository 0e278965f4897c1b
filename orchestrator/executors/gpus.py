"""The GPUs of this machine, MIG devices included: which there are, which are taken, and a lock for each one in use.

NVML (nvidia-ml-py) tells. It is opened and closed for each look, so that no process that is forked later has it open.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, TypeVar

import pynvml

LOCKS = Path("/tmp/orchestrate-gpus")  # the same for all users, whatever their TMPDIR
BUSY_MEMORY = 500  # MiB in use that make a GPU busy, if the driver names no process

T = TypeVar("T")


@dataclass(frozen=True)
class Gpu:
    """A device that CUDA can use: a GPU, or a MIG device of one that is divided into such."""

    index: str  # of the GPU, as the driver lists it
    uuid: str
    used: int  # MiB
    computing: tuple[int, ...]  # pids of processes that compute on it
    mig: int | None = None  # number of the MIG device on its GPU

    @property
    def label(self) -> str:
        """ "GPU 1", "GPU 1 MIG 0"."""
        return f"GPU {self.index}" + ("" if self.mig is None else f" MIG {self.mig}")

    @property
    def name(self) -> str:
        """What CUDA_VISIBLE_DEVICES calls it: MIG devices have no index."""
        return self.index if self.mig is None else self.uuid


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


def listed() -> tuple[Gpu, ...]:
    """All devices of this machine, as the driver tells; none where there is no driver."""
    found: list[Gpu] = []
    with suppress(pynvml.NVMLError), _driver():
        for index in range(pynvml.nvmlDeviceGetCount()):
            with suppress(pynvml.NVMLError):  # a GPU that has failed hides no other
                found += _devices(pynvml.nvmlDeviceGetHandleByIndex(index), index)
    return tuple(found)


@contextmanager
def _driver() -> Iterator[None]:
    """Raises NVMLError where there is no driver."""
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _devices(gpu: Any, index: int) -> list[Gpu]:
    """The GPU itself; if it is in MIG mode its MIG devices, since CUDA can use nothing else of it."""
    if not _ask(lambda: pynvml.nvmlDeviceGetMigMode(gpu)[0], 0):
        return [_read(gpu, index)]
    return [_read(part, index, number) for number, part in enumerate(_mig_devices(gpu))]


def _mig_devices(gpu: Any) -> Iterator[Any]:
    """The MIG devices of a GPU in MIG mode. The driver's numbers of them may have gaps."""
    for number in range(_ask(lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu), 0)):
        with suppress(pynvml.NVMLError):
            yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, number)


def _read(device: Any, index: int, mig: int | None = None) -> Gpu:
    # Version 2 leaves out what the driver keeps for itself, which is more than BUSY_MEMORY on large GPUs.
    used = _ask(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(device, pynvml.nvmlMemory_v2).used), 0)
    nobody: list[Any] = []
    computing = _ask(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(device), nobody)
    pids = tuple(process.pid for process in computing)
    return Gpu(str(index), pynvml.nvmlDeviceGetUUID(device), used >> 20, pids, mig)


def _ask(question: Callable[[], T], otherwise: T) -> T:
    """The driver's answer; not every GPU has one to every question."""
    try:
        return question()
    except pynvml.NVMLError:
        return otherwise


@lru_cache(maxsize=1)
def _uuid_by_name() -> dict[str, str]:
    """Kept, since a worker asks for each of its slots and NVML takes a while to open."""
    return {gpu.name: gpu.uuid for gpu in listed()}


def uuids(ids: Sequence[str]) -> tuple[str, ...]:
    """UUIDs of GPUs named by index or UUID; empty if the driver does not know one of them."""
    if not ids:
        return ()
    known = _uuid_by_name()
    found = tuple(known.get(name, name if name.startswith(("GPU-", "MIG-")) else "") for name in ids)
    return found if all(found) else ()


def claim(locks: Path = LOCKS) -> Claim:
    """Lock every GPU that is visible, unlocked and idle. Honours CUDA_VISIBLE_DEVICES."""
    ids, left_out, held = [], [], []
    for name, gpu in _visible(listed(), os.environ.get("CUDA_VISIBLE_DEVICES")):
        lock, owner = _lock(locks, gpu.uuid)
        busy = _busy(gpu)
        if lock is None:
            left_out.append(f"{gpu.label} (another sweep, {owner})")
        elif busy:
            lock.close()
            left_out.append(f"{gpu.label} ({busy})")
        else:
            ids.append(name)
            held.append(lock)
    return Claim(tuple(ids), tuple(left_out), held)


def _busy(gpu: Gpu) -> str:
    """Why it is left alone; empty if it is idle."""
    if gpu.computing:
        return f"in use by pid {gpu.computing[0]}"
    return f"{gpu.used} MiB in use" if gpu.used > BUSY_MEMORY else ""


def _visible(gpus: Sequence[Gpu], visible: str | None) -> list[tuple[str, Gpu]]:
    """(name as CUDA_VISIBLE_DEVICES wants it, device), in that variable's order where it is set."""
    if visible is None:
        return [(gpu.name, gpu) for gpu in gpus]
    chosen: list[tuple[str, Gpu]] = []
    for name in filter(None, (part.strip() for part in visible.split(","))):
        match = [gpu for gpu in gpus if gpu.name == name or gpu.uuid.startswith(name)]
        first = [gpu for gpu in gpus if gpu.index == name][:1]  # the index of a divided GPU: its first MIG device
        if len(match) == 1:
            chosen.append((name, match[0]))
        elif not match and first:
            chosen.append((first[0].name, first[0]))
        else:
            break  # CUDA ignores everything after a name that it does not know
    return chosen


def _lock(folder: Path, uuid: str) -> tuple[IO[str] | None, str]:
    """An exclusive lock on the GPU, or None and who holds it. Shared by all users of the machine."""
    folder.mkdir(parents=True, exist_ok=True)
    _open_to_all(folder, 0o1777)
    path = folder / f"{uuid.replace('/', '_')}.lock"  # MIG UUIDs of older drivers hold slashes
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
