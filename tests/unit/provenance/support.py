"""Makes projects."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

FILES = {
    "train.py": "import data\n\ndef train(cfg):\n    pass\n",
    "pkg/data.py": "SIZE = 1\n",
    "pkg/kernel.cu": "// fast\n",
    "conf/config.yaml": "lr: 1\n",
    "README.md": "# Read me\n",
    "tests/test_train.py": "def test(): pass\n",
    "docs/make.py": "",
    "runs/s/old.py": "",
    ".venv/lib.py": "",
    "pkg/__pycache__/data.pyc": "",
}
KEPT = ["conf/config.yaml", "docs/make.py", "pkg/data.py", "pkg/kernel.cu", "tests/test_train.py", "train.py"]


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def git(root: Path, *words: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True)


def make_repository(root: Path, files: dict[str, str]) -> None:
    """A repository with one commit."""
    write(root, files)
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")


def files(root: Path) -> list[str]:
    """All files below a folder; links are not followed."""
    found = []
    for folder, _, names in os.walk(root):
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(name for name in found if not (root / name).is_symlink())


def links(root: Path) -> list[str]:
    found = []
    for folder, below, names in os.walk(root):
        found += [os.path.relpath(os.path.join(folder, name), root) for name in (*below, *names)]
    return sorted(name for name in found if (root / name).is_symlink())
