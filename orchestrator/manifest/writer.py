"""The one writer of a manifest: the coordinator's side, under the sweep's lock."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator import __version__
from orchestrator.folder.paths import SweepFolder
from orchestrator.folder.presence import Presence
from orchestrator.manifest import db, migrate, stale
from orchestrator.manifest.attempts import Attempts
from orchestrator.manifest.plans import Plans
from orchestrator.manifest.trials import Trials


class Manifest:
    """A manifest open for writing; `plans`, `trials` and `attempts` take part in the `transaction` around them."""

    def __init__(
        self, folder: SweepFolder, connection: db.Connection, check: Callable[[], None] = lambda: None
    ) -> None:
        self.folder, self._db, self._check = folder, connection, check
        row = connection.execute("SELECT uid, name FROM sweep").fetchone()
        self.uid: str = row["uid"]
        self.name: str = row["name"]
        stale.install(connection, folder)
        self._presence = Presence(folder, self.uid)
        self.plans, self.trials, self.attempts = Plans(connection), Trials(connection), Attempts(connection)

    @classmethod
    def open(cls, folder: SweepFolder, check: Callable[[], None] = lambda: None) -> Manifest:
        """Open or create; one that holds a plan is backed up, and one of an older schema migrated.

        The caller holds the lock; `check` is called before each commit, and raises if that is no longer true. Raises
        ManifestError.
        """
        with db.errors(folder.manifest):
            connection = migrate.connect_writer(folder.manifest)
            try:
                if connection.execute("SELECT count(*) FROM sweep").fetchone()[0] == 0:
                    values = (secrets.token_hex(8), folder.name, time.time(), __version__)
                    connection.execute("INSERT INTO sweep (uid, name, created, writer) VALUES (?, ?, ?, ?)", values)
                else:
                    connection.execute("UPDATE sweep SET writer = ?1 WHERE writer <> ?1", (__version__,))
                    if connection.execute("SELECT EXISTS (SELECT 1 FROM plan)").fetchone()[0]:
                        db.back_up(connection, folder.manifest)
                manifest = cls(folder, connection, check)
                folder.uid.write_text(manifest.uid, encoding="utf-8")
                return manifest
            except BaseException:
                connection.close()
                raise

    def close(self) -> None:
        """Leave one file that copies as it is."""
        if self.in_place:
            db.close_writer(self._db)
        else:
            self._db.close()  # without a change to what is now in its place

    @property
    def in_place(self) -> bool:
        """Whether the sweep's folder is still where it was."""
        return self._presence.kept()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is durable when it ends, or none of it. Raises ManifestError."""
        self._presence.check()  # before the block writes anything into the folder
        with db.errors(self.folder.manifest), db.transaction(self._db):
            yield
            self._presence.check()
            self._check()
