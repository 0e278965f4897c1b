"""Keeps a copy of the project's files, named by the hash of their content, and finds changes of the code."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from orchestrator.errors import ConfigError, ManifestError
from orchestrator.files import new_folder
from orchestrator.provenance.git import git

SOURCES = {".py", ".pyx", ".pxd", ".c", ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h", ".hpp", ".rs", ".jl", ".sh"}
NOT_CODE = ("tests/", "docs/")
SKIPPED = {"__pycache__", ".venv", "venv", ".git", "runs", "wandb", "outputs", "multirun", "node_modules", "mlruns"}


@dataclass(frozen=True)
class Limits:
    """How much of a project is copied, in bytes."""

    file: int = 10 * 2**20  # a larger file is left out: it is data, not code
    total: int = 256 * 2**20  # a larger project is refused


LIMITS = Limits()


@dataclass(frozen=True)
class Code:
    """The project's files as they were when a sweep was planned."""

    code: str  # hash of the source files: a finished trial is stale if it has changed
    tree: str  # hash of all files: the name of the copy
    path: Path  # the copy
    left_out: tuple[str, ...]  # files that are too large


def import_path(tree: Path) -> tuple[str, ...]:
    """The folders that a trial puts first on sys.path."""
    source = tree / "src"
    return (str(tree), str(source)) if source.is_dir() else (str(tree),)


def keep_code(project: Path, store: Path, limits: Limits = LIMITS) -> Code:
    """Copy the project's files to `store`/<hash>, unless the copy exists.

    Raises ConfigError if the project is too large, ManifestError if the copy cannot be written.
    """
    files, left_out = project_files(project, limits)
    target = store / content_hash(project, files)
    if not target.is_dir():
        try:
            copy_files(project, files, target)
        except OSError as error:
            raise ManifestError(
                f"cannot keep a copy of the code: {error.strerror or error}", where=str(error.filename or target)
            ) from error
    return Code(content_hash(project, filter(_is_code, files)), target.name, target, left_out)


def code_hash(project: Path) -> str:
    """Hash of the source files. A finished trial is stale if it has changed."""
    return content_hash(project, filter(_is_code, project_files(project)[0]))


def content_hash(project: Path, files: Iterable[str]) -> str:
    """Hash of the names and contents of files. Files that cannot be read are skipped."""
    total = hashlib.sha256()
    for name in files:
        try:
            content = (project / name).read_bytes()
        except OSError:
            continue  # removed in the meantime, like an editor's temporary file, or not readable for this user
        total.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()[:12]


def _is_code(name: str) -> bool:
    return Path(name).suffix in SOURCES and not name.startswith(NOT_CODE)


def project_files(project: Path, limits: Limits = LIMITS) -> tuple[list[str], tuple[str, ...]]:
    """The sorted relative names of the project's files, and of those left out because they are too large."""
    listed = git(project, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = sorted(set((listed or "").split("\0")) - {""}) or _source_files(
        project
    )  # git lists none if the repository ignores the folder
    kept, left_out, total = [], [], 0
    for name in names:
        path = project / name
        if not path.is_file() or SKIPPED.intersection(Path(name).parts):
            continue
        size = path.stat().st_size
        if size > limits.file:
            left_out.append(name)
            continue
        total += size
        kept.append(name)
    if total > limits.total:
        raise ConfigError(
            f"the project has {total / 2**20:.0f} MB of files; a sweep copies at most {limits.total >> 20} MB",
            where=str(project),
            fix="list data and results in .gitignore, or run in the folder that contains the code",
        )
    return kept, tuple(left_out)


def _source_files(project: Path) -> list[str]:
    """The files to keep outside git: sources, and configuration and text files, below the project's folder."""
    found = []
    for folder, below, names in os.walk(project):
        below[:] = [name for name in below if name not in SKIPPED and not name.startswith(".")]
        for name in names:
            if Path(name).suffix in SOURCES | {".yaml", ".yml", ".json", ".toml", ".txt", ".cfg"}:
                found.append(os.path.relpath(os.path.join(folder, name), project))
        if len(found) > 20_000:
            break
    return sorted(found)


def copy_files(project: Path, files: Sequence[str], target: Path) -> None:
    """Copy files into a new folder `target`. Files that no longer exist or cannot be read are skipped."""
    with new_folder(target) as draft:
        for name in files:
            copy = draft / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError, PermissionError):
                shutil.copy2(project / name, copy)


def pack(tree: Path) -> bytes:
    """The copy as a zip file, for nodes without access to the sweep's folder."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in sorted(tree.rglob("*")):
            if path.is_file():
                name = os.fsencode(path.relative_to(tree)).decode("latin-1")  # names may be no valid Unicode
                archive.write(path, name)
    return buffer.getvalue()


def unpack(data: bytes, target: Path) -> None:
    """Undo `pack`. Several workers of a node may do this at once."""
    if target.is_dir():
        return
    with new_folder(target) as draft, zipfile.ZipFile(BytesIO(data)) as archive:
        for entry in archive.infolist():
            entry.filename = os.fsdecode(entry.filename.encode("latin-1"))
            os.chmod(archive.extract(entry, draft), entry.external_attr >> 16)


def difference(old: Path, new: Path) -> str:
    """The changes of the source files between two folders, in words: "train.py +12 −3, data.py +1 −1"."""
    changes = []
    for name in sorted(_code_names(old) | set(filter(_is_code, project_files(new)[0]))):
        before, after = _lines(old / name), _lines(new / name)
        if before == after:
            continue
        lines = list(difflib.unified_diff(before, after, n=0))[2:]
        plus = sum(line.startswith("+") for line in lines)
        minus = sum(line.startswith("-") for line in lines)
        changes.append(f"{name} +{plus} −{minus}")
    more = f", and {len(changes) - 3} more" if len(changes) > 3 else ""
    return ", ".join(changes[:3]) + more


def _code_names(tree: Path) -> set[str]:
    names = (path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.suffix in SOURCES)
    return set(filter(_is_code, names))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
