"""The GPUs of this machine, MIG devices included: which there are, which are taken, and a lock for each one in use.

NVML (nvidia-ml-py) tells. It is opened and closed for each look, so that no process that is forked later has it open.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pynvml

from orchestrator.errors import ResourceError

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
    left_out: tuple[str, ...] = ()  # in words: "GPU 1 (another sweep, pid 77)"
    _locks: list[int] = field(default_factory=list)  # open files

    def release(self) -> None:
        for lock in self._locks:
            os.close(lock)
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
    """Lock every GPU that is visible, unlocked and idle. Honours CUDA_VISIBLE_DEVICES.

    Raises ResourceError if the folder of the locks is not one that all users can share.
    """
    visible = _visible(listed(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    if not visible:
        return Claim()
    ids, left_out, held = [], [], []
    folder = _shared_folder(locks)
    try:
        for name, gpu in visible:
            lock, why = _lock(folder, gpu.uuid, locks)
            busy = why or _busy(gpu)
            if busy:
                left_out.append(f"{gpu.label} ({busy})")
                if lock is not None:
                    os.close(lock)
            elif lock is not None:
                ids.append(name)
                held.append(lock)
    finally:
        os.close(folder)
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


# ---------------------------------------------------------------- the locks


def _shared_folder(path: Path) -> int:
    """The folder of the locks, open. Any user may have made it: where it is sticky, nobody replaces another's file."""
    before = os.umask(0)
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=0o1777)
    finally:
        os.umask(before)
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise _not_shared(path, error.strerror or str(error)) from error
    found = os.fstat(folder)
    if found.st_mode & 0o1777 != 0o1777:
        if found.st_uid != os.getuid():
            os.close(folder)
            raise _not_shared(path, f"user {found.st_uid} has made it with mode {found.st_mode & 0o7777:o}")
        os.fchmod(folder, 0o1777)
    return folder


def _not_shared(path: Path, why: str) -> ResourceError:
    return ResourceError(
        f"GPUs cannot be locked against other users' sweeps: {why}",
        where=str(path),
        fix="this must be a folder of mode 1777: have its owner or root remove what is there, and run again",
    )


def _lock(folder: int, uuid: str, path: Path) -> tuple[int | None, str]:
    """An exclusive lock on the GPU, or why there is none. All users share the file, so nothing is written into it."""
    name = f"{uuid.replace('/', '_')}.lock"  # MIG UUIDs of older drivers hold slashes
    try:
        lock = _opened(name, folder)
    except OSError as error:
        return None, f"its lock {path / name}: {error.strerror or error}"
    try:
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            why = f"its lock {path / name} is not a regular file"
        else:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock, ""
    except BlockingIOError:
        why = ", ".join(filter(None, ("another sweep", _holder(lock))))
    except OSError as error:
        why = f"its lock {path / name}: {error.strerror or error}"
    os.close(lock)
    return None, why


def _opened(name: str, folder: int) -> int:
    """The file of a lock: of whatever owner, never behind a link, and made readable for all where it is new."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        lock = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
    except FileExistsError:
        return os.open(name, flags, dir_fd=folder)
    os.fchmod(lock, 0o644)  # whatever the umask
    return lock


def _holder(lock: int) -> str:
    """Who holds a lock that we did not get, as far as the kernel tells: "pid 77"."""
    file = os.fstat(lock)
    name = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5] == name:
                return f"pid {words[4]}"
    return ""
