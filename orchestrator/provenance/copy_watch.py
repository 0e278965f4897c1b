"""Sees what trials write into the copy of the code."""

from __future__ import annotations

import os
import time
from pathlib import Path

from orchestrator import naming
from orchestrator.folder.code_index import Index, index_of, is_code
from orchestrator.provenance.project_files import parents


class CopyWatch:
    """Sees what trials change in a copy."""

    def __init__(self, tree: Path) -> None:
        self._tree, self._index = tree, index_of(tree) or Index({})
        self._folders = {""}.union(*(parents(name) for name in (*self._index.files, *self._index.links)))
        self._due = 0.0
        self._known: dict[str, tuple[int, int] | None] = {}
        self._known = self._look() if self._index.files else {}

    def news(self, last: bool = False) -> list[str]:
        """What has changed since the last time, in words. Costs 1 % of the time; `last`: look in any case."""
        begun = time.monotonic()
        if not self._index.files or (begun < self._due and not last):
            return []
        found = self._look()
        appeared = sorted(found.keys() - self._known.keys() - self._index.files.keys())
        edited = sorted(
            name for name, facts in self._known.items() if name in self._index.files and found.get(name) != facts
        )
        self._known |= found
        self._known |= {name: found.get(name) for name in edited}
        self._due = time.monotonic() + 100 * (time.monotonic() - begun)
        told = []
        if appeared:
            told.append(f"{self._some(appeared)}: written by a trial beside its code; no part of the code")
        if edited:
            told.append(f"{self._some(edited)}: a trial has changed this code; later trials may import it so")
        return told

    def _some(self, names: list[str]) -> str:
        return f"{naming.some(names)} in {self._tree}"

    def _look(self) -> dict[str, tuple[int, int] | None]:
        """What is in the copy besides caches and links to data: size and time of each code file, None for the rest."""
        found: dict[str, tuple[int, int] | None] = {}
        for folder in self._folders:
            try:
                with os.scandir(self._tree / folder) as entries:
                    for entry in entries:
                        name = f"{folder}/{entry.name}" if folder else entry.name
                        if name in self._index.files and is_code(name):
                            facts = entry.stat()
                            found[name] = facts.st_size, facts.st_mtime_ns
                        elif entry.name != "__pycache__" and not (name in self._folders or name in self._index.links):
                            found[name] = None
            except OSError:
                continue
        return found
