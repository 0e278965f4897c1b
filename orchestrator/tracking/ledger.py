"""What has been delivered to a tracker, beside the manifest: a projection, which may be thrown away."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from orchestrator import files
from orchestrator.errors import ManifestError

OPENED = ""  # the version of a run of which not all has arrived

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS delivered (
    destination TEXT NOT NULL,  -- of the tracker: 'online', 'offline', a file
    run_id      TEXT NOT NULL,
    version     TEXT NOT NULL,  -- of the run, when all of it had arrived; '' for one that was only opened
    PRIMARY KEY (destination, run_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS note (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
COMMIT;
"""


class Ledger:
    """A tracker's ledger, open for writing, for one destination. The caller holds the tracker's lock."""

    def __init__(self, path: Path, destination: str) -> None:
        self._path, self._destination = path, destination
        with _errors(path):
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._db.execute("PRAGMA synchronous = NORMAL")  # what is lost is asked of the tracker again
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def version(self, run_id: str) -> str | None:
        """The version of the run that has wholly arrived, or `OPENED`."""
        with _errors(self._path):
            query = "SELECT version FROM delivered WHERE destination = ? AND run_id = ?"
            row = self._db.execute(query, (self._destination, run_id)).fetchone()
            return str(row[0]) if row else None

    def deliver(self, run_id: str, version: str) -> None:
        with _errors(self._path):
            query = "INSERT OR REPLACE INTO delivered (destination, run_id, version) VALUES (?, ?, ?)"
            self._db.execute(query, (self._destination, run_id, version))

    @property
    def cursor(self) -> int:
        """Everything in the manifest up to this change has been delivered."""
        with _errors(self._path):
            return int(_note(self._db, f"cursor {self._destination}") or 0)

    @cursor.setter
    def cursor(self, changed: int) -> None:
        self._keep(f"cursor {self._destination}", str(changed))

    def keep_address(self, address: str) -> None:
        """Where a person sees the runs."""
        self._keep("address", address)

    def _keep(self, name: str, value: str) -> None:
        with _errors(self._path):
            self._db.execute("INSERT OR REPLACE INTO note (name, value) VALUES (?, ?)", (name, value))


def address(path: Path) -> str | None:
    """Where a person sees the runs, as far as the ledger there knows; reads only, also a ledger of version 0.1."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as db:
            return _note(db, "address")
    except sqlite3.Error:
        return None  # there is none yet, or it cannot be read: nothing depends on it


def destinations(path: Path) -> list[str]:
    """Where runs have been delivered to, as far as the ledger there knows; reads only."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as db:
            return [row[0] for row in db.execute("SELECT DISTINCT destination FROM delivered ORDER BY destination")]
    except sqlite3.Error:
        return []


def take_over(old: Path, new: Path) -> None:
    """Move a ledger of version 0.1 to its new place. The caller holds the locks of both places.

    If this process dies on the way, the next call completes the move: the new file appears whole, and as long as the
    old one is there besides, it holds nothing more.
    """
    with _errors(old):
        if not old.exists():
            return
        if not new.exists():
            with files.replacing(new, durable=True) as draft:
                draft.unlink(missing_ok=True)  # of a process that died
                with closing(sqlite3.connect(draft, isolation_level=None)) as db:
                    _copy(old, db)
        for ending in ("-journal", ""):
            with suppress(FileNotFoundError):
                old.with_name(old.name + ending).unlink()


def _copy(old: Path, db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode = OFF")  # a draft's journal would be left behind, and spoil the next draft
    db.executescript(_SCHEMA)
    db.execute("ATTACH ? AS old", (str(old),))
    if db.execute("SELECT EXISTS (SELECT 1 FROM old.sqlite_master)").fetchone()[0]:
        db.execute("INSERT INTO delivered SELECT place, run_id, version FROM old.delivered")
        db.execute("INSERT INTO note SELECT name, value FROM old.note")


def _note(db: sqlite3.Connection, name: str) -> str | None:
    row = db.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else None


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise ManifestError(
            f"the tracker's ledger cannot be used: {error}",
            where=str(path),
            fix="free space on the disk, or remove the file if it is damaged: all is delivered again, each step once",
        ) from error
