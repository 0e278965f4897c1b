"""A folder in one file, as `run.save` writes it: it can be written, sent and deleted as one, like any other state.

It is a zip archive without compression. Its checksums detect damage, and reading it executes nothing. Symbolic links
are followed. Owners are not kept, nor are modes, except "executable".
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import IO

from orchestrator.text import safe

MAGIC = b"orchestrate folder 1\n"  # the file's first bytes
FILES = "files/"  # the folder's content inside the archive
_STATE = "orchestrate.state"


def write(file: IO[bytes], state: bytes, folder: Path) -> None:
    """Pack the content of `folder`, with `state` beside it."""
    file.write(MAGIC)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        archive.writestr(_STATE, state)
        for parent, folders, names in os.walk(folder, followlinks=True):
            folders.sort()
            for name in sorted([*folders, *names]):
                path = Path(parent, name)
                if safe(name) != name:
                    raise ValueError(f"{safe(str(path))}: the name is no valid Unicode: rename it, or run.save fails")
                archive.write(path, f"{FILES}{path.relative_to(folder)}")


def read(file: IO[bytes], target: Path) -> bytes:
    """Unpack into the new folder `target`; returns the state. Raises zipfile.BadZipFile if the file is damaged."""
    target.mkdir(parents=True)
    with zipfile.ZipFile(file) as archive:
        if _STATE not in archive.namelist():  # a truncated file can look like an archive that it contains
            raise zipfile.BadZipFile("its end is missing")
        for entry in archive.infolist():
            if entry.filename.startswith(FILES):
                path = Path(archive.extract(entry, target))
                if not entry.is_dir() and entry.external_attr >> 16 & 0o100:
                    path.chmod(path.stat().st_mode | 0o100)
        (target / FILES).mkdir(exist_ok=True)
        return archive.read(_STATE)
