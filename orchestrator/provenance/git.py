"""The one caller of git."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(project: Path, *arguments: str) -> str | None:
    """What git says, or None outside a repository or without git."""
    try:
        done = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")
