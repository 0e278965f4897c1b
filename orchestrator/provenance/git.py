"""Runs git; nothing else does."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

PATIENCE = 60.0  # seconds a command may take


class NoRepository(Exception):
    """The folder is in no repository, or there is no git: nothing is wrong."""


class GitError(Exception):
    """Git could not say what it was asked; the text says why, in one line."""


def git(project: Path, *arguments: str, given: bytes | None = None, patience: float = PATIENCE) -> bytes:
    """The output of a git command. Raises NoRepository or GitError. `given`: its standard input."""
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *arguments],
            capture_output=True,
            input=given,
            timeout=patience,
            check=False,
            env={**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},  # its messages are read below
        )
    except subprocess.TimeoutExpired:
        raise GitError(f"git {arguments[0]} took more than {patience:g} s") from None
    except OSError as error:
        if _repository_above(project):
            raise GitError(f"git cannot be run: {error.strerror}") from None
        raise NoRepository from None
    if not done.returncode:
        return done.stdout
    said = done.stderr.decode("utf-8", "replace")
    if "dubious ownership" in said:
        advice = re.search(r"git config --global --add safe\.directory .*", said)
        raise GitError(f"git distrusts its folder's owner ({advice[0] if advice else 'see safe.directory'})")
    if "not a git repository" in said:
        raise NoRepository
    lines = said.strip().splitlines() or [f"exit code {done.returncode}"]
    raise GitError(f"git {arguments[0]} fails: {lines[0].removeprefix('fatal: ')}")


def _repository_above(project: Path) -> bool:
    return any((folder / ".git").exists() for folder in (project.absolute(), *project.absolute().parents))
