"""Connections to a manifest, and SQLite's errors as messages for the user."""

from __future__ import annotations

import os
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from orchestrator.errors import ManifestError
from orchestrator.files import replacing
from orchestrator.folder.mounts import Mount, mount_of
from orchestrator.text import safe

Connection = sqlite3.Connection
Error = sqlite3.Error
Cursor = sqlite3.Cursor
Row = sqlite3.Row


def connect_writer(path: Path, mount: Mount | None = None) -> Connection:
    """Open for writing, without looking at the schema. The caller holds the sweep's lock.

    A write-ahead log needs memory that all readers share, which a network file system does not give.
    """
    if not (path.exists() and path.stat().st_size) and backup(path).exists():
        raise ManifestError("the manifest is missing or empty", where=str(path), fix=_recovery(path))
    with errors(path), _opening(sqlite3.connect(path, isolation_level=None, timeout=30)) as db:
        network = (mount or mount_of(path)).network
        db.execute(f"PRAGMA journal_mode = {'DELETE' if network else 'WAL'}")
        db.execute("PRAGMA synchronous = FULL")
        return db


def backup(path: Path) -> Path:
    """The path of the copy that the last start made."""
    return path.with_name(path.name + ".backup")


def back_up(db: Connection, path: Path) -> None:
    """Replace the backup by a copy of the manifest. Raises ManifestError if the manifest is damaged.

    If the copy cannot be written, the old backup stays: if the disk is full, the next write says so.
    """
    check_sound(db, path)
    with suppress(sqlite3.Error, OSError):
        copy(db, backup(path))


def check_sound(db: Connection, path: Path) -> None:
    """Raises ManifestError if the manifest is damaged."""
    with errors(path):
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(f"malformed: {verdict}")


def copy(db: Connection, target: Path, *, durable: bool = False) -> None:
    """Write a copy of the manifest to `target`, whole or not at all. Raises sqlite3.Error and OSError.

    `durable`: it is on disk when this returns.
    """
    with replacing(target, durable=durable) as draft:
        draft.unlink(missing_ok=True)
        with closing(sqlite3.connect(draft, isolation_level=None)) as other:
            db.backup(other)
            other.execute("PRAGMA journal_mode = DELETE")


def _recovery(path: Path) -> str:
    """What the user can do when the manifest is missing or damaged."""
    copy = backup(path)
    try:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(copy.stat().st_mtime))
    except OSError:
        return f"put back a copy of {path.name}, or move the folder away and run the sweep again"
    command = f"cd {shlex.quote(str(path.parent))} && rm -f {path.name}-* && cp {copy.name} {path.name}"
    after = "then run the same command: what has ended since runs again"
    return f"{command} brings it back as it was at its last start ({made}); {after}"


def connect_reader(path: Path, *, immutable: bool = False) -> Connection:
    """Open for reading, whether a coordinator is alive or not. `immutable`: as if nobody could write the file."""
    if not path.is_file():
        raise ManifestError("no manifest here", where=str(path), fix="orchestrate ls lists the sweeps")
    with errors(path), _opening(_immutable(path) if immutable else open_read_only(path)) as db:
        if _empty(db):
            raise ManifestError("nothing has been planned here yet", where=str(path), fix="run the sweep again")
        return db


@contextmanager
def _opening(db: Connection) -> Iterator[Connection]:
    """Close the connection again if the block raises."""
    try:
        db.row_factory = sqlite3.Row
        yield db
    except BaseException:
        db.close()
        raise


def _empty(db: Connection) -> bool:
    """Whether the file has no schema: it is new, or the process that made it died before it wrote one."""
    return not db.execute("SELECT EXISTS (SELECT 1 FROM sqlite_master)").fetchone()[0]


def open_read_only(path: Path) -> Connection:
    """A connection that cannot write, even where this user could."""
    db = sqlite3.connect(_uri(path), uri=True, isolation_level=None, timeout=30, check_same_thread=False)
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return db
    except sqlite3.Error as error:
        db.close()
        # A reader of a write-ahead log has to make its index, which a read-only folder forbids. Nobody can write there,
        # so the file may be read as immutable.
        if not isinstance(error, sqlite3.OperationalError) or os.access(path.parent, os.W_OK):
            raise
        return _immutable(path)


def _immutable(path: Path) -> Connection:
    return sqlite3.connect(f"{_uri(path)}&immutable=1", uri=True, isolation_level=None, check_same_thread=False)


def _uri(path: Path) -> str:
    return f"file:{quote(str(path.absolute()))}?mode=ro"


def close_writer(db: Connection) -> None:
    """Move the write-ahead log into the database and remove it: what is left is one file that can be copied."""
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error:
        pass  # somebody reads it: the next writer will do it
    db.close()


def written_ahead(path: Path) -> bool:
    """Whether the file is in WAL mode; then every reader makes a log beside it."""
    try:
        with open(path, "rb") as file:
            return file.read(19)[18:] == b"\2"
    except OSError:
        return False


@contextmanager
def transaction(db: Connection) -> Iterator[None]:
    """A transaction: all of the block is written, or nothing."""
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
    """All reads in the block see the same state."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        if db.in_transaction:
            db.execute("COMMIT")


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into messages that a user can act on."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explained(error, path) from error
    except OSError as error:
        raise ManifestError(error.strerror or str(error), where=str(path)) from error
    except OverflowError as error:
        raise ManifestError(
            "a whole number is too large for the manifest (64 bits)",
            where=str(path),
            fix="write it as a text or as a float",
        ) from error
    except UnicodeEncodeError as error:
        found = safe(error.object[max(0, error.start - 40) : error.end + 40])
        fix = "rename the file or folder, or change the value"
        raise ManifestError(f"this text is no valid Unicode: …{found}…", where=str(path), fix=fix) from error


def _explained(error: sqlite3.Error, path: Path) -> ManifestError:
    text, where = str(error), str(path)
    if (
        "locked" in text or "locking" in text or "LOCK" in getattr(error, "sqlite_errorname", "")
    ):  # the name: from Python 3.11 on
        return ManifestError(
            f"the manifest cannot be locked: {text}",
            where=where,
            fix=f"close what else has it open; if nothing has, files cannot be locked on {mount_of(path)}: "
            "copy the sweep to another disk, and name that with --runs DIR",
        )
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
