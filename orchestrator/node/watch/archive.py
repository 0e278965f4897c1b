"""A folder as one file: what `run.save` makes of it, so that it is written, kept, sent and lost whole, like a state.

A zip archive without compression: its checksums tell a damaged one, and nothing in it is executed when it is read.
Links are followed; owners, and modes but for "executable", are not kept.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import IO

MARK = b"orchestrate folder 1\n"  # first bytes of the file
FILES = "files/"  # where they lie in it
_STATE = "orchestrate.state"


def write(file: IO[bytes], state: bytes, folder: Path) -> None:
    """Pack what is in `folder`, with `state` beside it."""
    file.write(MARK)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        archive.writestr(_STATE, state)
        for parent, folders, names in os.walk(folder, followlinks=True):
            folders.sort()
            for name in sorted([*folders, *names]):
                path = Path(parent, name)
                archive.write(path, f"{FILES}{path.relative_to(folder)}")


def read(file: IO[bytes], target: Path) -> bytes:
    """Unpack into `target`, a new folder; the state. Raises zipfile.BadZipFile if it is damaged."""
    target.mkdir(parents=True)
    with zipfile.ZipFile(file) as archive:
        if _STATE not in archive.namelist():  # cut, an archive inside it can pass for the whole
            raise zipfile.BadZipFile("its end is missing")
        for entry in archive.infolist():
            if entry.filename.startswith(FILES):
                path = Path(archive.extract(entry, target))
                if not entry.is_dir() and entry.external_attr >> 16 & 0o100:
                    path.chmod(path.stat().st_mode | 0o100)
        (target / FILES).mkdir(exist_ok=True)
        return archive.read(_STATE)
