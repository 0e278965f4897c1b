"""The schema of a manifest, and its versions.

`schema/NNNN.sql` brings a manifest from the version before to version NNNN; `PRAGMA user_version` says which one a file
has. `schema/read-NNNN.sql`, then `schema/read.sql` and the newest view `trials`, show a manifest of version NNNN to a
reader of today: with views that live in the reader's own connection, so nothing is written.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from orchestrator import __version__
from orchestrator.errors import ManifestError
from orchestrator.manifest import db, functions

_SCHEMA = Path(__file__).with_name("schema")


@cache
def version() -> int:
    """The schema that this orchestrate writes."""
    return max(int(file.name[:4]) for file in _SCHEMA.iterdir() if file.name[:4].isdigit())


def connect_writer(path: Path) -> db.Connection:
    """Open for writing; creates the schema in a new file, and migrates an older one. The caller holds the sweep's lock.

    Before a migration the manifest is copied to `manifest.db.schema-N`, N being its version; that copy is kept.
    """
    connection = db.connect_writer(path)
    try:
        with db.errors(path):
            functions.add(connection)
            found = _checked_version(connection, path)
            if 0 < found < version():
                _keep_copy(connection, path, found)
            for number in range(found + 1, version() + 1):
                script = _script(f"{number:04}.sql")
                connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
        return connection
    except BaseException:
        connection.close()
        raise


def connect_reader(path: Path, *, immutable: bool = False) -> db.Connection:
    """Open for reading, whatever older version the manifest has; it is not written to.

    `immutable`: as for a file in a folder where nobody may write.
    """
    connection = db.connect_reader(path, immutable=immutable)
    try:
        with db.errors(path):
            found = _checked_version(connection, path)
            if found < version():
                functions.add(connection)
                connection.executescript(_script(f"read-{found:04}.sql") + _script("read.sql") + _trials())
        return connection
    except BaseException:
        connection.close()
        raise


def settle(path: Path) -> None:
    """Do what `close_writer` could not while a reader was there. The caller holds the sweep's lock."""
    if db.written_ahead(path):
        with db.errors(path):
            db.close_writer(connect_writer(path))


def _trials() -> str:
    """The view `trials` as the newest schema has it, for a reader's own connection."""
    for number in range(version(), 0, -1):
        _, found, select = _script(f"{number:04}.sql").partition("CREATE VIEW trials ")
        if found:
            return f"CREATE TEMP VIEW trials {select.partition(';')[0]};"
    raise AssertionError("no schema has the view")


def _script(name: str) -> str:
    return (_SCHEMA / name).read_text(encoding="utf-8")


def _checked_version(connection: db.Connection, path: Path) -> int:
    """The version of the manifest. Raises ManifestError if it is newer than this orchestrate."""
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > version():
        raise ManifestError(
            f"written by {_writer(connection)} (schema {found}); "
            f"this is orchestrate {__version__} (schema {version()})",
            where=str(path),
            fix="read it with that version, or start a sweep of another name",
        )
    return found


def _writer(connection: db.Connection) -> str:
    """Which orchestrate wrote here last, as far as a file of a schema we do not know says so."""
    try:
        row = connection.execute("SELECT writer FROM sweep").fetchone()
    except db.Error:
        row = None
    return f"orchestrate {row[0]}" if row and row[0] else "a newer orchestrate"


def _keep_copy(connection: db.Connection, path: Path, found: int) -> None:
    """Keep a sound copy of the manifest as it was, once for each version. Raises ManifestError if it cannot be kept."""
    copy = path.with_name(f"{path.name}.schema-{found}")
    if not copy.exists():
        db.check_sound(connection, path)
        try:
            db.copy(connection, copy, durable=True)
        except (db.Error, OSError) as error:
            raise ManifestError(
                f"cannot keep a copy of it before its schema is changed: {error}",
                where=str(copy),
                fix="free space on the disk, or make the folder writable; nothing was changed",
            ) from error
