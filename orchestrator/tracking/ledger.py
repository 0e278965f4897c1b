"""What has been delivered to a tracker, beside the manifest: a projection, which may be thrown away."""

from __future__ import annotations

from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest import db

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS delivered (
    place   TEXT NOT NULL,      -- 'online' or 'offline'
    run_id  TEXT NOT NULL,
    version TEXT NOT NULL,      -- of the run, when all of it had arrived
    PRIMARY KEY (place, run_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS note (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
COMMIT;
"""


class Ledger:
    """`tracker.db`, for one place. Written by whoever holds the tracker's lock; anyone may read."""

    def __init__(self, folder: SweepFolder, place: str, *, write: bool = False) -> None:
        """For reading, the file must be there."""
        self._db = db.connect_tracker(folder.tracker, _SCHEMA if write else None)
        self._path, self._place = folder.tracker, place

    def close(self) -> None:
        self._db.close()

    def version(self, run_id: str) -> str | None:
        """The version of the run that has wholly arrived."""
        with db.errors(self._path):
            query = "SELECT version FROM delivered WHERE place = ? AND run_id = ?"
            row = self._db.execute(query, (self._place, run_id)).fetchone()
            return str(row[0]) if row else None

    def deliver(self, run_id: str, version: str) -> None:
        with db.errors(self._path):
            query = "INSERT OR REPLACE INTO delivered (place, run_id, version) VALUES (?, ?, ?)"
            self._db.execute(query, (self._place, run_id, version))

    @property
    def cursor(self) -> int:
        """Everything in the manifest up to this change has been delivered."""
        return int(self.note(f"cursor {self._place}") or 0)

    @cursor.setter
    def cursor(self, changed: int) -> None:
        self.keep(f"cursor {self._place}", str(changed))

    def note(self, name: str) -> str | None:
        with db.errors(self._path):
            row = self._db.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
            return str(row[0]) if row else None

    def keep(self, name: str, value: str) -> None:
        with db.errors(self._path):
            self._db.execute("INSERT OR REPLACE INTO note (name, value) VALUES (?, ?)", (name, value))
