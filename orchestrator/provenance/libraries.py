"""Folders beside the project from which Python imports: those of editable installs, `.pth` files and PYTHONPATH."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.files import PACKAGE


def folders(project: Path) -> list[Path]:
    """These folders, without those inside of another one or of the project, installed packages and this program."""
    installed = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *_site_folders()}
    above = [os.path.realpath(project)]
    found: list[Path] = []
    for folder in sorted({os.path.realpath(each) for each in (*_python_path(), *_pth_files(), *_editable())}):
        inside = any(_within(folder, other) for other in above)
        library = any(_within(folder, os.path.realpath(each)) for each in installed)
        if inside or library or not os.path.isdir(folder) or _is_this_program(folder):
            continue
        above.append(folder)
        found.append(Path(folder))
    return found


def _is_this_program(folder: str) -> bool:
    """Whether it holds this package, whichever version of it."""
    return os.path.isfile(os.path.join(folder, os.path.basename(PACKAGE), "cli", "main.py"))


def _within(folder: str, other: str) -> bool:
    return folder == other or folder.startswith(other.rstrip(os.sep) + os.sep)


def _site_folders() -> list[str]:
    return [entry for entry in sys.path if os.path.basename(entry) in ("site-packages", "dist-packages")]


def _python_path() -> Iterator[str]:
    return filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))


def _pth_files() -> Iterator[str]:
    """What the lines of `.pth` files name."""
    for folder in map(Path, _site_folders()):
        for file in folder.glob("*.pth"):
            try:
                lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            except OSError:
                continue
            for line in filter(None, map(str.strip, lines)):
                if not line.startswith(("import ", "import\t", "#")):
                    yield str(folder / line)


def _editable() -> Iterator[str]:
    """The folders of packages that are installed in editable mode: PEP 610 says how that is recorded."""
    for package in importlib.metadata.distributions():
        text = package.read_text("direct_url.json")
        if text and '"editable"' in text:
            origin = json.loads(text)
            if origin.get("dir_info", {}).get("editable") and origin.get("url", "").startswith("file:"):
                yield unquote(urlsplit(origin["url"]).path)
