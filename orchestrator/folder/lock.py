"""Which process holds a sweep: an exclusive lock on a file, which the kernel releases when the process ends.

The file says who holds it. On a network file system a lock may reach no further than one machine (NFS with `nolock`),
so that two would get it. There the holder renews what the file says, and reads it again before each commit; another
machine takes over only after it has watched the file stay as it is. It measures that by its own clock: those of two
machines may differ.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import LockedError, ManifestError
from orchestrator.folder import mounts
from orchestrator.folder.paths import SweepFolder, unwritable

_SIZE = 512  # bytes; each record has as many, so that one is never seen with the end of another


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock."""

    host: str
    pid: int
    since: float
    boot: str = ""

    def __str__(self) -> str:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"pid {self.pid} on {self.host}, since {started}"


def _boot_id() -> str:
    """Differs between machines, between two starts of one, and between its containers, each of which may mount anew."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


@dataclass(frozen=True)
class Machine:
    """This machine, as far as locks depend on it."""

    host: str = field(default_factory=socket.gethostname)
    boot: str = field(default_factory=_boot_id)
    mounts: Path = mounts.TABLE
    renewal: float = 10.0  # seconds between two renewals of a record
    watch: float = 60.0  # seconds for which another machine's record must stay as it is


class Watch:
    """Another machine's record: given up once it has stayed as it is for a while. Pure."""

    def __init__(self, text: str, now: float, patience: float) -> None:
        self._text, self._until = text, now + patience

    def given_up(self, text: str, now: float) -> bool:
        """Raises BlockingIOError if the record has been renewed."""
        if text and text != self._text:
            raise BlockingIOError
        return not text or now >= self._until


class Lock:
    """An exclusive lock on a file; the kernel releases it when the process ends, however it ends."""

    def __init__(self, path: Path, machine: Machine | None = None) -> None:
        """Raises OSError if the file cannot be opened. It is locked by `seize`."""
        self.path, self._machine = path, machine or Machine()
        self.mount = mounts.mount_of(path, self._machine.mounts)
        self._me = Holder(self._machine.host, os.getpid(), time.time(), self._machine.boot)
        self._renewals, self._released = 0, threading.Event()
        self._renewing: threading.Thread | None = None
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)

    @classmethod
    def take(
        cls, folder: SweepFolder, machine: Machine | None = None, say: Callable[[str], None] | None = None
    ) -> Lock:
        """Hold a sweep. `say` is told why it takes long, if it does.

        Raises LockedError with the holder's host, pid and start time; ManifestError if the folder is read-only, or if
        files cannot be locked there.
        """
        try:
            lock = cls(folder.lock, machine)
            lock.seize(say=say)
        except BlockingIOError as error:
            holder, name = _holder(_text(folder.lock)), folder.argument
            raise LockedError(
                f"another coordinator runs this sweep ({holder or 'starting up'})",
                where=str(folder.path),
                fix=f"orchestrate status {name} --watch shows it; orchestrate stop {name} ends it",
            ) from error
        except OSError as error:
            raise unwritable(folder, error) from error
        return lock

    def seize(self, wait: bool = False, say: Callable[[str], None] | None = None) -> None:
        """Raises BlockingIOError if another process holds it, unless `wait`; ManifestError where nothing can be locked.

        On a network file system with `wait`, a holder on another machine raises all the same.
        """
        try:
            self._lock(wait)
            if self.mount.network:
                self._outwait(say or _say)
            self._write()
        except BaseException:
            os.close(self._fd)
            raise
        if self.mount.network:
            self._renewing = threading.Thread(target=self._renew, daemon=True, name="renews a lock")
            self._renewing.start()

    def _lock(self, wait: bool) -> None:
        try:
            with contextlib.suppress(BlockingIOError, PermissionError):  # held by another process: so they do work
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # what SQLite uses
                fcntl.lockf(self._fd, fcntl.LOCK_UN)
            for patience in range(10, -1, -1):  # `holder_of` in another process locks it for a moment
                try:
                    return fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                except BlockingIOError:
                    if not patience:
                        raise
                    time.sleep(0.02)
        except BlockingIOError:
            raise
        except OSError as error:
            raise ManifestError(
                f"files cannot be locked on {self.mount}: {error.strerror or error}",
                where=str(self.path),
                fix="a sweep needs locks: keep it on another disk with --runs DIR",
            ) from error

    # ------------------------------------------------------------ the record, on network file systems

    def _outwait(self, say: Callable[[str], None]) -> None:
        """Wait until another machine that has the sweep has given no sign of life for a while."""
        text = _text(self.path)
        other = _holder(text)
        if not text or other is None or other.boot in ("", self._me.boot):  # on this machine the lock itself is enough
            return
        watch = Watch(text, time.monotonic(), self._machine.watch)
        say(f"held by {other}: taking over if that gives no sign of life for {self._machine.watch:g} s …")
        while not watch.given_up(_text(self.path), time.monotonic()):
            time.sleep(min(1.0, self._machine.watch / 20))

    def _write(self) -> None:
        record = {**vars(self._me), "renewals": self._renewals}
        os.pwrite(self._fd, json.dumps(record).ljust(_SIZE).encode(), 0)  # in place: no reader finds it empty
        os.ftruncate(self._fd, _SIZE)
        if self.mount.network:
            os.fsync(self._fd)

    def _renew(self) -> None:
        while not self._released.wait(self._machine.renewal):
            with contextlib.suppress(OSError):  # the disk may be back the next time
                if not self._mine():
                    return
                self._renewals += 1
                self._write()

    def _mine(self) -> bool:
        return _holder(_text(self.path)) == self._me

    def check(self) -> None:
        """To be called before each commit. Raises LockedError if another machine has taken over."""
        if self.mount.network and not self._mine():
            holder = _holder(_text(self.path))
            raise LockedError(
                f"another coordinator has taken this sweep over ({holder or 'it has ended since'})",
                where=str(self.path.parent),
                fix=f"this one gave no sign of life for {self._machine.watch:g} s; what the other one records counts",
            )

    @property
    def held(self) -> bool:
        """Whether no other machine has taken over."""
        try:
            self.check()
        except (LockedError, OSError):
            return False
        return True

    def release(self) -> None:
        self._released.set()
        if self._renewing is not None:
            self._renewing.join()
        if self.held:
            os.ftruncate(self._fd, 0)
        os.close(self._fd)


def holder_of(folder: SweepFolder, machine: Machine | None = None) -> Holder | None:
    """Who holds the sweep now, or None. Reads only."""
    try:
        with open(folder.lock, encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _holder(handle.read()) or Holder("this machine", 0, time.time())
            return _elsewhere(folder, handle.read(), machine)
    except OSError:
        return None


def _elsewhere(folder: SweepFolder, text: str, machine: Machine | None) -> Holder | None:
    """The holder on another machine, whose lock this one does not see; none that has given no sign for a while."""
    holder = _holder(text)
    if holder is None or not holder.boot:
        return None
    here = machine or Machine()
    if holder.boot == here.boot or not mounts.mount_of(folder.lock, here.mounts).network:
        return None
    return holder if abs(time.time() - folder.lock.stat().st_mtime) < here.watch else None


def _text(path: Path) -> str:
    """The file's content now: opened anew, since that is when a network file system asks its server."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""


def _holder(text: str) -> Holder | None:
    try:
        data = json.loads(text)
        return Holder(data["host"], data["pid"], data["since"], data.get("boot", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
