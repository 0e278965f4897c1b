"""What has been delivered to a tracker, beside the manifest: a projection, which may be thrown away."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
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
CREATE TABLE IF NOT EXISTS late (
    destination TEXT NOT NULL,
    run_id      TEXT NOT NULL,
    trial_id    TEXT NOT NULL,
    steps       INTEGER NOT NULL,  -- of which the run lacks rows, since they came after a later step
    PRIMARY KEY (destination, run_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replaced (
    destination TEXT NOT NULL,
    run_id      TEXT NOT NULL,
    trial_id    TEXT NOT NULL,
    stand_in    TEXT NOT NULL,     -- the run that is sent in its place
    told        INTEGER NOT NULL DEFAULT 0,  -- whether it says there that it is superseded
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
        self._path, self._destination, self._cursor = path, destination, f"cursor {destination}"
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

    def keep_late(self, run_id: str, trial_id: str, steps: int) -> None:
        """The run lacks rows of so many steps."""
        with _errors(self._path):
            values = (self._destination, run_id, trial_id, steps)
            self._db.execute("INSERT OR REPLACE INTO late VALUES (?, ?, ?, ?)", values)

    def current(self, run_id: str) -> str:
        """The run that was sent last in the place of this one; itself, if none was."""
        query = "SELECT stand_in FROM replaced WHERE destination = ? AND run_id = ?"
        with _errors(self._path):
            while row := self._db.execute(query, (self._destination, run_id)).fetchone():
                run_id = str(row[0])
        return run_id

    def replace(self, run_id: str, trial_id: str, stand_in: str) -> None:
        """Another run is to be sent in the place of this one."""
        with _errors(self._path):
            values = (self._destination, run_id, trial_id, stand_in)
            self._db.execute("INSERT INTO replaced VALUES (?, ?, ?, ?, 0)", values)

    def replacing(self) -> list[tuple[str, str, str]]:
        """(trial, run, run in its place), as long as the first run does not say so."""
        with _errors(self._path):
            query = "SELECT trial_id, run_id, stand_in FROM replaced WHERE destination = ? AND NOT told"
            return self._db.execute(query, (self._destination,)).fetchall()

    def told(self, run_id: str) -> None:
        """The run says now that it is superseded."""
        with _errors(self._path):
            query = "UPDATE replaced SET told = 1 WHERE destination = ? AND run_id = ?"
            self._db.execute(query, (self._destination, run_id))

    @property
    def cursor(self) -> int:
        """Everything in the manifest up to this change has been delivered."""
        with _errors(self._path):
            row = self._db.execute("SELECT value FROM note WHERE name = ?", (self._cursor,)).fetchone()
            return int(row[0]) if row else 0

    @cursor.setter
    def cursor(self, changed: int) -> None:
        self._keep(self._cursor, str(changed))

    def keep_address(self, address: str) -> None:
        """Where a person sees the runs."""
        self._keep("address", address)

    def _keep(self, name: str, value: str) -> None:
        with _errors(self._path):
            self._db.execute("INSERT OR REPLACE INTO note (name, value) VALUES (?, ?)", (name, value))


def address(path: Path) -> str | None:
    """Where a person sees the runs, as far as the ledger there knows; reads only, also a ledger of version 0.1."""
    return next((str(row[0]) for row in _read(path, "SELECT value FROM note WHERE name = 'address'")), None)


def destinations(path: Path) -> list[str]:
    """Where runs have been delivered to, as far as the ledger there knows; reads only."""
    return [row[0] for row in _read(path, "SELECT DISTINCT destination FROM delivered ORDER BY destination")]


def late(path: Path) -> dict[str, int]:
    """Trial -> steps of which its run lacks rows, as far as the ledger there knows; reads only."""
    query = """SELECT trial_id, max(steps) FROM late l
               WHERE NOT EXISTS (SELECT 1 FROM replaced WHERE destination = l.destination AND run_id = l.run_id)
               GROUP BY trial_id ORDER BY trial_id"""
    return dict(_read(path, query))


def _read(path: Path, query: str) -> list[Any]:
    """Rows of a ledger; none where there is none yet, it is of an older version, or it cannot be read."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as db:
            return db.execute(query).fetchall()
    except sqlite3.Error:
        return []  # nothing depends on it


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
