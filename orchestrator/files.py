"""Files on disk: replaced whole or not at all, and temporary ones that no other user can touch."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGE = os.path.dirname(os.path.abspath(__file__))  # the folder of this package


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = False, tag: str = "") -> Iterator[Path]:
    """A draft beside `path`, to be written inside the block; it takes the place of `path` when the block ends.

    If the block raises, or the process dies, `path` stays as it was; a draft that a dead process left is overwritten by
    the next one. `durable`: file and folder are on the disk when this returns. `tag` tells the drafts of several
    processes apart that may replace one file at once.
    """
    draft = path.with_name(f".{path.name}{tag}.part")
    try:
        yield draft
        if durable:
            sync(draft)
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A draft of the folder `path`, to be filled inside the block; if `path` is there by then, that one is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=".draft-"))
    try:
        yield draft
        draft.chmod(0o755)
        try:
            draft.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def scratch() -> Path:
    """This user's own folder for temporary files on this machine. Raises PermissionError if it is somebody else's."""
    folder = Path(tempfile.gettempdir()) / f"orchestrate-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder
