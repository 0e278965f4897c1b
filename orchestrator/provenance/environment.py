"""The environment of a sweep: git commit, interpreter, packages, machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import socket
import sys
from pathlib import Path
from typing import Any

from orchestrator.provenance.git import git


def environment(project: Path, store: Path) -> dict[str, Any]:
    """The facts of the environment. The list of packages and the uncommitted changes become files in `store`."""
    packages = "\n".join(
        sorted({f"{dist.name}=={dist.version}" for dist in importlib.metadata.distributions()}, key=str.lower)
    )
    changes = git(project, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-color")
    return {
        "commit": (git(project, "rev-parse", "HEAD") or "").strip(),
        "change": _keep(store, "change", changes) if changes else "",
        "packages": _keep(store, "packages", packages),
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "host": socket.gethostname(),
    }


def _keep(store: Path, prefix: str, text: str) -> str:
    """Store a text in a file that is named by the hash of its content. Returns the name."""
    content = text.encode("utf-8", "surrogateescape")
    name = f"{prefix}-{hashlib.sha256(content).hexdigest()[:12]}.txt"
    path = store / name
    if not path.exists():
        store.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return name
