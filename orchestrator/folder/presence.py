"""Whether a sweep's folder is still where it was: the user may delete, move or replace it while the sweep runs."""

from __future__ import annotations

import errno
import os

from orchestrator.errors import ManifestError
from orchestrator.folder import mounts
from orchestrator.folder.paths import SweepFolder

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


class Presence:
    """Watches the manifest's file. Everything else in the folder is written by its path, so by that it must be ours."""

    def __init__(self, folder: SweepFolder, uid: str) -> None:
        self._folder, self._uid = folder, uid
        self._manifest = str(folder.manifest)
        self._identity = _identity(os.stat(self._manifest))
        self._network = mounts.mount_of(folder.manifest).network

    def kept(self) -> bool:
        try:
            if _identity(os.stat(self._manifest)) == self._identity:
                return True
            # The numbers of files may change by themselves on a network file system.
            return self._network and self._folder.uid.read_text(encoding="utf-8") == self._uid
        except OSError as error:
            return error.errno not in _GONE  # any other error may pass

    def check(self) -> None:
        """Raises ManifestError if the folder is not there any more, or another one is in its place."""
        if not self.kept():
            raise ManifestError(
                "the sweep's folder was deleted, moved or replaced while the sweep ran: its trials are ended",
                where=str(self._folder.path),
                fix="if it was moved, move it back and run the same command: what was recorded by then is kept",
            )


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
