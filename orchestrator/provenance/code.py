"""The project's code, kept: a copy of its files by the hash of their content."""

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

FILE_LIMIT = 10 * 2**20  # bytes; a larger file is data, not code
TREE_LIMIT = 256 * 2**20
SOURCES = {".py", ".pyx", ".pxd", ".c", ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h", ".hpp", ".rs", ".jl", ".sh"}
NOT_CODE = ("tests/", "docs/")
SKIPPED = {"__pycache__", ".venv", "venv", ".git", "runs", "wandb", "outputs", "multirun", "node_modules", "mlruns"}


@dataclass(frozen=True)
class Code:
    """The project's files as they were when a sweep was planned."""

    code: str  # hash of the source files alone: what makes a finished trial stale
    tree: str  # hash of all files: the name of the copy
    path: Path  # the copy
    left_out: tuple[str, ...]  # files over FILE_LIMIT


def import_path(tree: Path) -> tuple[str, ...]:
    """What a trial puts first on sys.path."""
    source = tree / "src"
    return (str(tree), str(source)) if source.is_dir() else (str(tree),)


def keep_code(project: Path, store: Path) -> Code:
    """Copy the project's files to `store`/<hash>, once. Raises ConfigError where there are too many, ManifestError."""
    files, left_out = project_files(project)
    target = store / _hash(project, files)
    if not target.is_dir():
        try:
            _copy(project, files, target)
        except OSError as error:
            raise ManifestError(
                f"cannot keep a copy of the code: {error.strerror or error}", where=str(error.filename or target)
            ) from error
    return Code(_hash(project, filter(_is_code, files)), target.name, target, left_out)


def code_hash(project: Path) -> str:
    """Hash of the source files alone: what makes a finished trial stale when it changes."""
    return _hash(project, filter(_is_code, project_files(project)[0]))


def _hash(project: Path, files: Iterable[str]) -> str:
    total = hashlib.sha256()
    for name in files:
        try:
            content = (project / name).read_bytes()
        except OSError:
            continue  # an editor's file, gone meanwhile, or one that this user may not read
        total.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()[:12]


def _is_code(name: str) -> bool:
    return Path(name).suffix in SOURCES and not name.startswith(NOT_CODE)


def project_files(project: Path) -> tuple[list[str], tuple[str, ...]]:
    """Relative names of the project's files, sorted, and those left out for their size."""
    listed = git(project, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = sorted(set((listed or "").split("\0")) - {""}) or _source_files(project)  # a repository may ignore it
    kept, left_out, total = [], [], 0
    for name in names:
        path = project / name
        if not path.is_file() or SKIPPED.intersection(Path(name).parts):
            continue
        size = path.stat().st_size
        if size > FILE_LIMIT:
            left_out.append(name)
            continue
        total += size
        kept.append(name)
    if total > TREE_LIMIT:
        raise ConfigError(
            f"the project holds {total / 2**20:.0f} MB of files; a sweep keeps a copy of at most {TREE_LIMIT >> 20} MB",
            where=str(project),
            fix="name data and results in .gitignore, or run from the folder that holds the code",
        )
    return kept, tuple(left_out)


def _source_files(project: Path) -> list[str]:
    """Outside git: source files and small configuration below the working directory."""
    found = []
    for folder, below, names in os.walk(project):
        below[:] = [name for name in below if name not in SKIPPED and not name.startswith(".")]
        for name in names:
            if Path(name).suffix in SOURCES | {".yaml", ".yml", ".json", ".toml", ".txt", ".cfg"}:
                found.append(os.path.relpath(os.path.join(folder, name), project))
        if len(found) > 20_000:
            break
    return sorted(found)


def _copy(project: Path, files: Sequence[str], target: Path) -> None:
    """Whole or not at all: into a folder beside, then renamed."""
    with new_folder(target) as draft:
        for name in files:
            copy = draft / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError, PermissionError):
                shutil.copy2(project / name, copy)


def pack(tree: Path) -> bytes:
    """The copy as a zip, for nodes that do not see the sweep's folder."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in sorted(tree.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(tree))
    return buffer.getvalue()


def unpack(data: bytes, target: Path) -> None:
    """Undo `pack`; safe when several workers of a node do it at once."""
    if target.is_dir():
        return
    with new_folder(target) as draft, zipfile.ZipFile(BytesIO(data)) as archive:
        for entry in archive.infolist():
            os.chmod(archive.extract(entry, draft), entry.external_attr >> 16)


def difference(old: Path, new: Path) -> str:
    """What changed between a copy and a project, in words: "train.py +12 −3, data.py +1 −1"."""
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
