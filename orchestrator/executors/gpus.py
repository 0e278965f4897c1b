"""The GPUs of this machine, MIG devices included: which there are, which are taken, and a lock for each one in use.

NVML (nvidia-ml-py) tells. It is opened and closed for each look, so that no process that is forked later has it open.
"""

from __future__ import annotations

import fcntl
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pynvml

from orchestrator.errors import ResourceError
from orchestrator.model.sweep import Resources

LOCKS = Path("/tmp/orchestrate-gpus")  # the same for all users, whatever their TMPDIR
_HIDDEN = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES by which a user hides all GPUs
_NO_DRIVER = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

T = TypeVar("T")


@dataclass(frozen=True)
class Gpu:
    """A device that CUDA can use: a GPU, or a MIG device of one that is divided into such."""

    index: str  # of the GPU, as the driver lists it
    uuid: str
    computing: tuple[int, ...]  # pids of processes that compute on it; who only draws does not count
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
    there: tuple[Gpu, ...] = ()  # all that are visible, whoever uses them
    _locks: list[int] = field(default_factory=list)  # open files
    _folder: Path = LOCKS

    def check(self, sizes: Iterable[Resources]) -> None:
        """Raises ResourceError if a trial asks for GPUs that it could never get here, whoever uses them."""
        most = _most(sizes)
        parts = [gpu.label for gpu in self.there if gpu.mig is not None]
        if most > 1 and parts:
            raise ResourceError(
                f"a trial asks for {most} GPUs, but CUDA uses one MIG device a process: {', '.join(parts)}",
                where="sweep.resources.gpus",
                fix="ask for one, or leave them out: CUDA_VISIBLE_DEVICES=0,1 names the GPUs to use",
            )
        if self.there and most > len(self.there):
            raise ResourceError(
                f"a trial asks for {most} GPUs, and this machine has {len(self.there)}",
                where="sweep.resources.gpus",
                fix="ask for fewer, or join a cluster with --address",
            )

    def short_of(self, sizes: Iterable[Resources]) -> bool:
        """Whether one of these trials has to wait until others have left a GPU."""
        return bool(self.there) and len(self.ids) < _most(sizes)

    def retry(self) -> None:
        """Let go of what is held, and claim again."""
        self.release()
        found = claim(self._folder)
        self.ids, self.left_out, self.there, self._locks = found.ids, found.left_out, found.there, found._locks

    def release(self) -> None:
        for lock in self._locks:
            os.close(lock)
        self._locks.clear()


def _most(sizes: Iterable[Resources]) -> int:
    """GPUs of the trial that asks for most of them; where the machine has any, "auto" is one."""
    return max((1 if each.gpus == "auto" else math.ceil(each.gpus) for each in sizes), default=0)


def listed() -> tuple[Gpu, ...]:
    """All devices of this machine, as the driver tells; none where there is no driver."""
    return _look()[0]


def _look() -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """All devices that CUDA can use, and what of the machine's GPUs it cannot use, in words.

    Raises ResourceError if there is a driver that does not answer: nobody knows then which GPUs there are.
    """
    found: list[Gpu] = []
    unusable: list[str] = []
    try:
        with _driver():
            for index in range(pynvml.nvmlDeviceGetCount()):
                try:  # a GPU that has failed hides no other
                    devices = _devices(pynvml.nvmlDeviceGetHandleByIndex(index), index)
                    found += devices
                    unusable += [] if devices else [f"GPU {index} (in MIG mode, and not divided)"]
                except pynvml.NVMLError as error:
                    unusable.append(f"GPU {index} (the driver says: {error})")
    except pynvml.NVMLError as error:
        if error.value in _NO_DRIVER:
            return (), ()
        raise ResourceError(
            f"the GPU driver does not answer: {error}",
            where="NVML",
            fix="see nvidia-smi; CUDA_VISIBLE_DEVICES= (empty) runs the trials on the CPU",
        ) from error
    return tuple(found), tuple(unusable)


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
    nobody: list[Any] = []
    computing = _ask(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(device), nobody)
    return Gpu(str(index), pynvml.nvmlDeviceGetUUID(device), tuple(process.pid for process in computing), mig)


def _ask(question: Callable[[], T], otherwise: T) -> T:
    """The driver's answer; not every GPU has one to every question."""
    try:
        return question()
    except pynvml.NVMLError:
        return otherwise


@lru_cache(maxsize=1)
def _uuid_by_name() -> dict[str, str]:
    """Kept, since a worker asks for each of its slots and NVML takes a while to open."""
    with suppress(ResourceError):
        return {gpu.name: gpu.uuid for gpu in listed()}
    return {}


def uuids(ids: Sequence[str]) -> tuple[str, ...]:
    """UUIDs of GPUs named by index or UUID; empty if the driver does not know one of them."""
    if not ids:
        return ()
    known = _uuid_by_name()
    found = tuple(known.get(name, name if name.startswith(("GPU-", "MIG-")) else "") for name in ids)
    return found if all(found) else ()


def not_for_one_process(ids: Sequence[str]) -> str:
    """Why one process cannot use all of these GPUs, in words; empty if it can."""
    if len(ids) > 1 and any(name.startswith("MIG-") for name in ids):
        return f"it was given {len(ids)} GPUs, but CUDA uses one MIG device a process: {', '.join(ids)}"
    return ""


def claim(locks: Path = LOCKS) -> Claim:
    """Lock every GPU that is visible, unlocked and idle. Honours CUDA_VISIBLE_DEVICES.

    Raises ResourceError if that names a device that is not there, if the driver does not answer, or if the folder of
    the locks is not one that all users can share.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in _HIDDEN:
        return Claim()
    gpus, unusable = _look()
    chosen, ignored = _visible(gpus, visible)
    if not chosen and (gpus or unusable):
        raise _none_usable(gpus, unusable, visible)
    left_out = list(unusable) if visible is None else []
    if ignored:
        follow = ", and CUDA ignores what follows" if len(ignored) > 1 else ""
        left_out.append(f"{','.join(ignored)} of CUDA_VISIBLE_DEVICES ({ignored[0]} is no device here{follow})")
    if not chosen:
        return Claim(left_out=tuple(left_out), _folder=locks)
    ids, held = [], []
    folder = _shared_folder(locks)
    try:
        for name, gpu in chosen:
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
    return Claim(tuple(ids), tuple(left_out), tuple(gpu for _, gpu in chosen), held, locks)


def _none_usable(gpus: Sequence[Gpu], unusable: Sequence[str], visible: str | None) -> ResourceError:
    """There are GPUs, and the sweep can have none of them, whoever uses them: it does not run on the CPU instead."""
    there = ", ".join([*(f"{gpu.name} ({gpu.label})" for gpu in gpus), *unusable])
    return ResourceError(
        f"no GPU of this machine can be used; it has {there}",
        where="this machine" if visible is None else f"CUDA_VISIBLE_DEVICES={visible}",
        fix="name one of these in CUDA_VISIBLE_DEVICES, or run the trials on the CPU with sweep.resources.gpus=0 and "
        "CUDA_VISIBLE_DEVICES= (empty)",
    )


def _busy(gpu: Gpu) -> str:
    """Why it is left alone; empty if it is idle."""
    others = [pid for pid in gpu.computing if pid != os.getpid()]
    if not others:
        return ""
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return f"in use by {_process(others[0])}{more}"


def _process(pid: int) -> str:
    """ "pid 77 (python)"; only the pid where it is not among the processes that are seen here."""
    try:
        return f"pid {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except (OSError, UnicodeDecodeError):
        return f"pid {pid}"


def _visible(gpus: Sequence[Gpu], visible: str | None) -> tuple[list[tuple[str, Gpu]], list[str]]:
    """(name as CUDA_VISIBLE_DEVICES wants it, device), in that variable's order where it is set; and what CUDA ignores.

    That is all from the first name on that it does not know.
    """
    if visible is None:
        return [(gpu.name, gpu) for gpu in gpus], []
    chosen: list[tuple[str, Gpu]] = []
    names = [name for name in (part.strip() for part in visible.split(",")) if name]
    for number, name in enumerate(names):
        match = [gpu for gpu in gpus if gpu.name == name or gpu.uuid.startswith(name)]
        first = [gpu for gpu in gpus if gpu.index == name][:1]  # the index of a divided GPU: its first MIG device
        if len(match) == 1:
            chosen.append((name, match[0]))
        elif not match and first:
            chosen.append((first[0].name, first[0]))
        else:
            return chosen, [] if name == "-1" else names[number:]
    return chosen, []


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
