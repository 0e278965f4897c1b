"""Connections to a manifest, and the errors of SQLite in words."""

from __future__ import annotations

import os
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from orchestrator.errors import ManifestError
from orchestrator.files import replacing

VERSION = 1  # PRAGMA user_version of the schema
Connection = sqlite3.Connection
Cursor = sqlite3.Cursor
Row = sqlite3.Row

_NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "fuse.sshfs", "9p", "glusterfs")


def connect_writer(path: Path) -> Connection:
    """Open for writing, creating the schema if the file is new. The caller holds the sweep's lock."""
    if not (path.exists() and path.stat().st_size) and backup(path).exists():
        raise ManifestError("the manifest is missing or empty", where=str(path), fix=_recovery(path))
    with errors(path), _opening(sqlite3.connect(path, isolation_level=None, timeout=30)) as db:
        db.execute(f"PRAGMA journal_mode = {'DELETE' if on_network(path) else 'WAL'}")
        db.execute("PRAGMA synchronous = FULL")
        if _empty(db):
            script = (resources.files("orchestrator.manifest") / "schema.sql").read_text(encoding="utf-8")
            db.executescript(f"BEGIN; {script} PRAGMA user_version = {VERSION}; COMMIT;")
        check_version(db, path)
        return db


def backup(path: Path) -> Path:
    """Where the manifest is as it was at the last start."""
    return path.with_name(path.name + ".backup")


def back_up(db: Connection, path: Path) -> None:
    """Keep a copy of a sound manifest in the place of the last one. Raises ManifestError if it is damaged.

    A copy that cannot be written leaves the last one: a full disk is told by what comes next.
    """
    with errors(path):
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"malformed: {verdict}")
    with suppress(sqlite3.Error, OSError), replacing(backup(path)) as draft:
        draft.unlink(missing_ok=True)
        _copy(db, draft)


def _copy(db: Connection, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as copy:
        db.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")


def _recovery(path: Path) -> str:
    """What to do without this manifest."""
    copy = backup(path)
    try:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(copy.stat().st_mtime))
    except OSError:
        return f"put back a copy of {path.name}, or move the folder away and run the sweep again"
    command = f"cd {shlex.quote(str(path.parent))} && rm -f {path.name}-* && cp {copy.name} {path.name}"
    after = "then run the same command: what has ended since runs again"
    return f"{command} brings it back as it was at its last start ({made}); {after}"


def connect_reader(path: Path) -> Connection:
    """Open for reading, live or dead; a folder that cannot be written is read as it stands."""
    if not path.is_file():
        raise ManifestError("no manifest here", where=str(path), fix="orchestrate ls lists the sweeps")
    with errors(path), _opening(_open_read_only(path)) as db:
        if _empty(db):
            raise ManifestError("nothing has been planned here yet", where=str(path), fix="run the sweep again")
        check_version(db, path)
        return db


@contextmanager
def _opening(db: Connection) -> Iterator[Connection]:
    """Closed again if it turns out to be of no use."""
    try:
        db.row_factory = sqlite3.Row
        yield db
    except BaseException:
        db.close()
        raise


def _empty(db: Connection) -> bool:
    """Whether the file is new, or its maker died before the schema was in it."""
    return not db.execute("SELECT EXISTS (SELECT 1 FROM sqlite_master)").fetchone()[0]


def _open_read_only(path: Path) -> Connection:
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30, check_same_thread=False)
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return db
    except sqlite3.Error as error:
        db.close()
        # WAL needs a writable folder; nobody can be writing where nobody may write.
        if not isinstance(error, sqlite3.OperationalError) or os.access(path.parent, os.W_OK):
            raise
        return sqlite3.connect(uri + "&immutable=1", uri=True, isolation_level=None, check_same_thread=False)


def check_version(db: Connection, path: Path) -> None:
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found != VERSION:
        raise ManifestError(
            f"written by another version of orchestrate (schema {found}, this one reads {VERSION})",
            where=str(path),
            fix="read it with the version that wrote it, or start a sweep of another name",
        )


def close_writer(db: Connection) -> None:
    """Leave one file that copies as it is: the write-ahead log is folded in and removed."""
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error:
        pass  # a reader is there: the log is folded in by the next writer
    db.close()


def settle(path: Path) -> None:
    """Do what `close_writer` could not while a reader was there. The caller holds the sweep's lock."""
    if written_ahead(path):
        with errors(path):
            close_writer(connect_writer(path))


def written_ahead(path: Path) -> bool:
    """Whether the file says that a write-ahead log belongs to it; every reader then makes one."""
    try:
        with open(path, "rb") as file:
            return file.read(19)[18:] == b"\2"
    except OSError:
        return False


@contextmanager
def transaction(db: Connection) -> Iterator[None]:
    """All of it, or none of it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has rolled it back already
            db.execute("ROLLBACK")
        raise


@contextmanager
def snapshot(db: Connection) -> Iterator[None]:
    """Every read inside sees the same instant."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        if db.in_transaction:
            db.execute("COMMIT")


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """SQLite's errors as messages a user can act on."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(error, path) from error
    except OSError as error:
        raise ManifestError(error.strerror or str(error), where=str(path)) from error
    except OverflowError as error:
        raise ManifestError("a whole number is too large for the manifest (64 bits)", where=str(path)) from error


def _explained(error: sqlite3.Error, path: Path) -> ManifestError:
    text, where = str(error), str(path)
    if "disk is full" in text or "disk I/O error" in text:
        return ManifestError(
            f"cannot write the manifest: {text}",
            where=where,
            fix="free space on the disk, then run the same command again: nothing recorded is lost",
        )
    if "readonly" in text:
        return ManifestError(
            f"cannot write the manifest: {text}", where=where, fix="make the folder writable, or use --runs DIR"
        )
    if "unable to open" in text:
        return ManifestError(
            f"cannot open the manifest: {text}", where=where, fix="may this user read and write the folder?"
        )
    if "not a database" in text or "malformed" in text:
        return ManifestError(
            f"the manifest is damaged: {text}",
            where=where,
            fix=_recovery(path),
        )
    return ManifestError(f"the manifest cannot be used: {text}", where=where)


def on_network(path: Path) -> bool:
    """Whether the file would stand on a network file system, where a write-ahead log is unsafe."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    target, best, kind = str(path.resolve()), "", ""
    for line in mounts:
        _, point, fstype, *_ = line.split(" ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fstype
    return kind.startswith(_NETWORK)
