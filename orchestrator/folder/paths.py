"""A sweep is a folder: where things stand in it, and who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from orchestrator.errors import LockedError, ManifestError, NotFoundError, nearest

LATEST = "the latest sweep"


@dataclass(frozen=True)
class SweepFolder:
    """Paths of one sweep."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.db"

    @property
    def tracker(self) -> Path:
        return self.path / "tracker.db"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def uid(self) -> Path:
        """Holds the sweep's uid: a node that reads the same text there sees this very folder."""
        return self.path / "uid"

    @property
    def requests(self) -> Path:
        return self.path / "requests"

    @property
    def code(self) -> Path:
        return self.path / "code"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance"

    @property
    def log(self) -> Path:
        """What a detached coordinator prints."""
        return self.path / "sweep.log"

    def trial(self, trial_id: str) -> Path:
        return self.path / "trials" / trial_id

    def attempt_log(self, trial_id: str, attempt: int) -> Path:
        return self.trial(trial_id) / f"attempt-{attempt}.log"


def runs_root(runs: str | None) -> Path:
    """Where sweeps are kept: `--runs`, else ORCHESTRATE_RUNS, else ./runs."""
    return Path(runs or os.environ.get("ORCHESTRATE_RUNS") or "runs").expanduser().absolute()


def create(root: Path, name: str) -> SweepFolder:
    """Make a sweep's folder, if it is not there yet."""
    folder = SweepFolder(root / name)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        ignore = root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        folder.requests.mkdir(exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def files_of(folder: SweepFolder, storage: str | None, project: str, uid: str) -> SweepFolder:
    """Where trials keep their files, by the same paths: the sweep's own folder, or one below `sweep.storage`.

    That one has the sweep's uid in its name: another sweep of this name does not meet it.
    """
    return SweepFolder(Path(project, Path(storage).expanduser()) / f"{folder.name}-{uid[:8]}") if storage else folder


def open_files(files: SweepFolder, uid: str) -> None:
    """Make that folder, such that nodes that see it know it. Raises ManifestError."""
    try:
        files.path.mkdir(parents=True, exist_ok=True)
        files.uid.write_text(uid, encoding="utf-8")
    except OSError as error:
        raise ManifestError(
            f"cannot write: {error.strerror or error}", where=f"sweep.storage: {files.path}", fix="name another folder"
        ) from error


def discard(folder: SweepFolder, folder_too: bool, root_too: bool) -> None:
    """Undo `create` for a sweep of which no plan was written; never touches what was there before."""
    if folder_too:
        shutil.rmtree(folder.path, ignore_errors=True)
    else:
        for ending in ("", "-wal", "-shm", "-journal"):  # not the backup
            folder.manifest.with_name(folder.manifest.name + ending).unlink(missing_ok=True)
    root = folder.path.parent
    if root_too and [path.name for path in root.iterdir()] == [".gitignore"]:
        shutil.rmtree(root, ignore_errors=True)


def _unwritable(folder: SweepFolder, error: OSError) -> ManifestError:
    return ManifestError(
        f"cannot write: {error.strerror or error}",
        where=str(folder.path),
        fix="free the disk, make the folder writable, or choose another place with --runs DIR",
    )


def sweeps(root: Path) -> list[SweepFolder]:
    """All sweeps below `root`, the one changed last first."""
    found = [SweepFolder(path.parent) for path in root.glob("*/manifest.db")]
    return sorted(found, key=lambda folder: -_touched(folder))


def find(root: Path, sweep: str | None) -> SweepFolder:
    """The sweep of that name or folder; the latest one for None. Raises NotFoundError."""
    if sweep is not None and (Path(sweep) / "manifest.db").is_file():
        return SweepFolder(Path(os.path.abspath(sweep)))
    known = sweeps(root)
    if sweep is None:
        if not known:
            raise NotFoundError("no sweep here yet", where=str(root), fix="orchestrate sweep conf/sweep.yaml")
        return known[0]
    for folder in known:
        if folder.name == sweep:
            return folder
    near = nearest(sweep, [folder.name for folder in known])
    hint = f"did you mean {near}?" if near else "orchestrate ls lists them"
    raise NotFoundError(f"no sweep named {sweep!r}", where=str(root), fix=hint)


def _touched(folder: SweepFolder) -> float:
    """When the sweep was last written, seconds since the epoch."""
    times = []
    for name in ("manifest.db", "manifest.db-wal", "lock"):
        try:
            times.append((folder.path / name).stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)


# ---------------------------------------------------------------- who holds it


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
    """An exclusive lock on a file of its own; it goes with its process, however that ends."""

    def __init__(self, handle: IO[str]) -> None:
        self._handle = handle

    @classmethod
    def take(cls, folder: SweepFolder) -> Lock:
        """Raises LockedError with the holder's host, pid and start time; ManifestError where nobody may write."""
        try:
            handle = open(folder.lock, "a+", encoding="utf-8")  # noqa: SIM115 - held until release
            try:
                cls._seize(handle)
            except BaseException:
                handle.close()
                raise
        except BlockingIOError as error:
            raise LockedError(
                f"another coordinator runs this sweep ({holder(folder) or 'starting up'})",
                where=str(folder.path),
                fix=f"orchestrate status {folder.name} --watch shows it; orchestrate stop {folder.name} ends it",
            ) from error
        except OSError as error:
            raise _unwritable(folder, error) from error
        return cls(handle)

    @staticmethod
    def _seize(handle: IO[str]) -> None:
        for patience in range(10, -1, -1):  # a reader that looks who holds it locks it for an instant
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


def holder(folder: SweepFolder) -> Holder | None:
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


# ---------------------------------------------------------------- asking a live coordinator


def ask(folder: SweepFolder, request: dict[str, Any], timeout: float = 30.0) -> str | None:
    """Leave a request for the live coordinator and wait for its answer; None if it gives none in time."""
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    path, answer = folder.requests / f"{name}.json", folder.requests / f"{name}.answer"
    draft = folder.requests / f"{name}.tmp"
    try:
        folder.requests.mkdir(exist_ok=True)
        draft.write_text(json.dumps(request), encoding="utf-8")
        draft.rename(path)
    except OSError as error:
        raise _unwritable(folder, error) from error
    until = time.monotonic() + timeout
    while time.monotonic() < until and holder(folder) is not None:
        if answer.exists():
            break
        time.sleep(0.05)
    try:
        return answer.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    finally:
        path.unlink(missing_ok=True)
        answer.unlink(missing_ok=True)


def asked(folder: SweepFolder) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Requests not yet answered, oldest first. Damaged ones are dropped."""
    for path in sorted(folder.requests.glob("*.json")):
        try:
            request = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            request = None
        if isinstance(request, dict):
            yield path, request
        else:
            path.unlink(missing_ok=True)


def forget_requests(folder: SweepFolder) -> None:
    """Drop what was asked of an earlier coordinator; whoever asked is gone."""
    for path in folder.requests.glob("*"):
        path.unlink(missing_ok=True)


def answer(path: Path, text: str) -> None:
    """Answer a request, and take it off the pile."""
    draft = path.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.rename(path.with_suffix(".answer"))
    path.unlink(missing_ok=True)


_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def safe_name(name: str) -> bool:
    """Whether a sweep of this name stays inside the runs folder."""
    return bool(_SAFE.fullmatch(name)) and len(name) <= 128
