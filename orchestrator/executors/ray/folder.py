"""The folder for the files of a Ray that we start: private, short enough for sockets, and gone when the sweep ends.

The path of a unix socket has at most 107 bytes, of which Ray adds more than half to its folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ClusterError

_VARIABLES = ("RAY_TMPDIR", "TMPDIR")  # the first one that is set says where the user wants it
_OTHERWISE = ("/tmp", "/var/tmp", "/dev/shm")
_PREFIX, _LOCK = "ray-", "orchestrate.lock"
_MAX_SOCKET = 107  # bytes
_LONGEST_SOCKET = "session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_TRIES, _PAUSE = 40, 0.05  # how often to delete what Ray's last processes still write to, and seconds between


@dataclass
class RayFolder:
    """A folder that is ours as long as this process lives and has not removed it."""

    path: Path
    note: str  # why it is not where the user wants it; "" if it is
    _lock: int

    @classmethod
    def make(cls) -> RayFolder:
        """Below the folder that the user names, or else below one that works. Removes those of sweeps that died."""
        name = next((each for each in _VARIABLES if os.environ.get(each)), "")
        wanted = [os.path.abspath(os.environ[name])] if name else []
        problems: list[str] = []
        for base in (*wanted, *_OTHERWISE):
            problem = _too_long(base)
            if not problem:
                try:
                    path, lock = _new_folder(base)
                except OSError as error:
                    problem = error.strerror or str(error)
                else:
                    _remove_abandoned(Path(base))
                    note = f"{name}={problems[0]}: Ray keeps its files in {path}" if wanted and problems else ""
                    return cls(path, note, lock)
            problems.append(f"{base} ({problem})")
        raise ClusterError(
            f"no folder for Ray's files: {', '.join(problems)}", where="embedded Ray", fix="name one in RAY_TMPDIR"
        )

    def remove(self) -> None:
        """Delete it, once Ray has ended. What cannot be deleted now is left to the next start."""
        for _ in range(_TRIES):
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                break
            time.sleep(_PAUSE)
        os.close(self._lock)


def _too_long(base: str) -> str:
    socket = os.path.join(base, _PREFIX + 8 * "x", _LONGEST_SOCKET)
    return "too long for Ray's sockets" if len(os.fsencode(socket)) > _MAX_SOCKET else ""


def _new_folder(base: str) -> tuple[Path, int]:
    """A new folder, and the lock in it. Nobody sees the lock before we hold it. Raises OSError."""
    path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (path / "lock").rename(path / _LOCK)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return path, lock


def _remove_abandoned(base: Path) -> None:
    """Delete the folders of this user's sweeps that have died: nobody holds their locks."""
    for folder in base.glob(f"{_PREFIX}*"):
        with _lock_of_dead(folder) as dead:
            if dead:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _lock_of_dead(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder whose process has died. False if it lives, or if the folder is none of ours."""
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise PermissionError
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(lock)
