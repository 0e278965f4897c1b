"""A project outside git, and the same one in a repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.provenance.support import FILES, git, write


@pytest.fixture(autouse=True)
def _own_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Git reads no configuration of the user, and finds no repository above the project. No library lies beside it."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A project outside git."""
    root = tmp_path / "project"
    write(root, FILES)
    return root


@pytest.fixture
def repository(plain: Path) -> Path:
    """The same project in a git repository, with files that git ignores."""
    write(plain, {".gitignore": "*.log\n/data/\n.venv\nruns\n__pycache__\n", "out.log": "", "data/big.csv": "1,2\n"})
    git(plain, "init", "-q")
    git(plain, "add", ".")
    git(plain, "commit", "-qm", "first")
    write(plain, {"new.py": "untracked = True\n", "new.log": ""})
    return plain


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where the code of a sweep is kept."""
    return tmp_path / "runs" / "s" / "code"
