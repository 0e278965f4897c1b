"""The environment of a sweep: git commit, uncommitted changes, interpreter, packages, machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.files import keep_by_hash
from orchestrator.provenance.git import GitError, NoRepository, git
from orchestrator.provenance.project_files import is_secret

LARGEST_PATCH = 20 * 2**20  # bytes of changed files in it; of the files beyond, the hashes are kept
LARGEST_HASHED = 2**30  # bytes; of a larger file, size and time are kept

_DIFF = ("diff", "HEAD", "--no-ext-diff", "--no-color", "--no-renames", "--submodule=short")


def environment(project: Path, store: Path, largest_patch: int = LARGEST_PATCH) -> dict[str, Any]:
    """The facts of the environment. The list of packages and the uncommitted changes become files in `store`.

    What git could not say is named under "problems", if there is anything.
    """
    packages = "\n".join(
        sorted({f"{dist.name}=={dist.version}" for dist in importlib.metadata.distributions()}, key=str.lower)
    )
    commit, change, problems = "", b"", []
    try:
        commit = _commit(project)
        change = _change(project, largest_patch) if commit else b""
    except NoRepository:
        pass
    except GitError as error:
        lost = "uncommitted changes are" if commit else "commit and uncommitted changes are"
        problems.append(f"{error}: {lost} not recorded; the sweep's copy of the code has the files")
    return {
        "commit": commit,
        "change": keep_by_hash(store, "change", change, ".txt") if change else "",
        "packages": keep_by_hash(store, "packages", os.fsencode(packages), ".txt"),
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        **({"problems": problems} if problems else {}),
    }


def _commit(project: Path) -> str:
    """The commit; "" where there is none yet."""
    try:
        return git(project, "rev-parse", "--verify", "--quiet", "HEAD").decode().strip()
    except GitError as error:
        if "fails: exit code" in str(error):  # quiet: it says nothing where there is no commit
            return ""
        raise


class _Changed(NamedTuple):
    """A file that differs from the commit. The size is the greater one of both, which a patch holds."""

    size: int
    name: str  # relative to the repository's root


def _change(project: Path, largest: int) -> bytes:
    """The uncommitted changes as a patch; above it, the names of the files that are not in it, and their hashes."""
    root = Path(os.fsdecode(git(project, "rev-parse", "--show-toplevel").rstrip(b"\n")))
    changed = _changed_files(root)
    kept, lines, apart, total = 0, [], [], 0
    for each in changed:
        secret = is_secret(each.name.rpartition("/")[2])
        if not secret and total + each.size <= largest:
            total += each.size
            kept += 1
            continue
        apart.append(f":(top,exclude,literal){each.name}")
        why = "may hold secrets" if secret else f"too large: {_described(root / each.name)}"
        lines.append(os.fsencode(f"# not kept: {each.name} ({why})\n"))
    return b"".join(lines) + (git(root, *_DIFF, "--binary", "--", ".", *apart) if kept else b"")


def _changed_files(root: Path) -> list[_Changed]:
    """The smallest first."""
    fields = git(root, *_DIFF, "--raw", "-z", "--abbrev=40").split(b"\0")
    names = [os.fsdecode(name) for name in fields[1::2]]
    before = [line.split()[2] for line in fields[:-1:2]]
    sizes = git(root, "cat-file", "--batch-check=%(objectsize)", given=b"\n".join(before) + b"\n").split(b"\n")
    return sorted(
        _Changed(max(int(old) if old.isdigit() else 0, _size(root / name)), name)
        for name, old in zip(names, sizes, strict=False)
    )


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _described(path: Path) -> str:
    """A file that is not kept: its size, and what identifies its content."""
    try:
        facts = path.stat()
        if facts.st_size > LARGEST_HASHED:
            return f"{facts.st_size} bytes, changed at {facts.st_mtime:.0f}"
        with open(path, "rb") as file:
            total = hashlib.sha256()
            while block := file.read(2**20):
                total.update(block)
        return f"{facts.st_size} bytes, sha256 {total.hexdigest()}"
    except OSError:
        return "removed"
