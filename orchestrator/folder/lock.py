"""Which coordinator holds a sweep: an exclusive lock on a file, which the kernel releases when its process ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import dataclass
from typing import IO

from orchestrator.errors import LockedError
from orchestrator.folder.paths import SweepFolder, unwritable


@dataclass(frozen=True)
class Holder:
    """The coordinator that holds a sweep."""

    host: str
    pid: int
    since: float

    def __str__(self) -> str:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"pid {self.pid} on {self.host}, since {started}"


class Lock:
    """An exclusive lock on a file; the kernel releases it when the process ends, however it ends."""

    def __init__(self, handle: IO[str]) -> None:
        self._handle = handle

    @classmethod
    def take(cls, folder: SweepFolder) -> Lock:
        """Raises LockedError with the holder's host, pid and start time; ManifestError if the folder is read-only."""
        try:
            handle = open(folder.lock, "a+", encoding="utf-8")  # noqa: SIM115 - held until release
            try:
                cls._seize(handle)
            except BaseException:
                handle.close()
                raise
        except BlockingIOError as error:
            raise LockedError(
                f"another coordinator runs this sweep ({holder_of(folder) or 'starting up'})",
                where=str(folder.path),
                fix=f"orchestrate status {folder.name} --watch shows it; orchestrate stop {folder.name} ends it",
            ) from error
        except OSError as error:
            raise unwritable(folder, error) from error
        return cls(handle)

    @staticmethod
    def _seize(handle: IO[str]) -> None:
        for patience in range(10, -1, -1):  # `holder_of` in another process locks it for a moment
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not patience:
                    raise
                time.sleep(0.02)
        handle.seek(0)
        handle.truncate()
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}, handle)
        handle.flush()

    def release(self) -> None:
        self._handle.seek(0)
        self._handle.truncate()
        self._handle.close()


def holder_of(folder: SweepFolder) -> Holder | None:
    """Who holds the sweep now, or None. Reads only."""
    try:
        with open(folder.lock, encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return _holder(handle.read())
            return None
    except OSError:
        return None


def _holder(text: str) -> Holder | None:
    try:
        data = json.loads(text)
        return Holder(data["host"], data["pid"], data["since"])
    except (ValueError, KeyError, TypeError):
        return Holder("this machine", 0, time.time())
