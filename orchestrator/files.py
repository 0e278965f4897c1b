"""Files on disk: atomic replacement, and a folder for temporary files that no other user can write to."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGE = os.path.dirname(os.path.abspath(__file__))  # the folder of this package


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = False, tag: str = "") -> Iterator[Path]:
    """Replace a file atomically: the block writes to the path that it is given, a draft beside `path`.

    If the block raises or the process dies, `path` is unchanged; the next call overwrites a draft that was left behind.
    `durable`: the file and its folder are on disk when this returns. `tag` gives each of several processes that may
    replace the same file at once a draft of its own.
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


def keep_by_hash(folder: Path, kind: str, content: bytes, ending: str) -> str:
    """Have this content in a file of the folder, "<kind>-<hash><ending>"; returns the name. It appears whole."""
    import hashlib  # loads OpenSSL, which a light process that only replaces files does without

    name = f"{kind}-{hashlib.sha256(content).hexdigest()[:12]}{ending}"
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path, tag=f".{os.getpid()}") as draft:
            draft.write_bytes(content)
    return name


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Create a folder atomically: the block fills a draft. If `path` exists by then, the draft is discarded."""
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
    """Wait until a file, or the list of names in a folder, is on disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL or not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise  # but some network file systems know no such thing for a folder
    finally:
        os.close(fd)


def scratch() -> Path:
    """This user's private folder for temporary files. Raises PermissionError if something else has its name."""
    folder = Path(tempfile.gettempdir()) / f"orchestrate-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise PermissionError(f"{folder} is not a folder of this user: {error.strerror}; remove it") from error
    try:
        found = os.fstat(fd)
        if found.st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user; have it removed, or set TMPDIR")
        if found.st_mode & 0o077:
            os.fchmod(fd, 0o700)
    finally:
        os.close(fd)
    return folder
