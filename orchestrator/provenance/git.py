"""Runs git; nothing else does."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(project: Path, *arguments: str) -> str | None:
    """The output of a git command; None if it fails, as outside a repository or without git."""
    try:
        done = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "surrogateescape")  # as Python names files: no byte is lost
