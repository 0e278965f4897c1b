"""What differs between two copies of a project's code, as far as it matters to an attempt.

An attempt says which files of its copy it imported, ran or opened: only a change of those matters. Where it could not
say that, every source file does. Of a Python file only its syntax tree matters: not its comments nor its layout, but
its docstrings, which a program can read.
"""

from __future__ import annotations

import ast
import hashlib
import os
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.folder.code_index import counts, index_of

_WITH = "\0"  # no name has it in it
_KEPT = 1000  # pairs of files, whose comparison is remembered


@dataclass(frozen=True)
class CodeFiles:
    """The files of a copy of the code, or those that a copy would have today."""

    digests: Mapping[str, str]  # the SHA-256 of each file
    live: Mapping[str, str]  # a folder that is no part of the copy -> its hash
    places: Mapping[str, str] = field(default_factory=dict)  # where a file is, if not below `tree`
    tree: str = ""

    def path(self, name: str) -> str:
        return self.places.get(name) or os.path.join(self.tree, name)


def code_files(tree: Path) -> CodeFiles | None:
    """The files of a copy; None if it is not there, or was made by version 0.1."""
    index = index_of(tree)
    return CodeFiles(index.files, index.live, tree=str(tree)) if index is not None else None


def edited_since(tree: Path, used: Collection[str] | None = None) -> list[str]:
    """The source files that were edited or removed since a copy of them was made, where the project is here.

    `used`: only what matters of these, as for `changed`.
    """
    index = index_of(tree)
    if index is None or not all(map(os.path.isdir, index.roots.values())):
        return []
    names = {name.partition(_WITH)[0] for name in used} if used is not None else filter(counts, index.files)
    places = {name: _place(name, index.roots) for name in names if name in index.files}
    digests = {name: content for name, place in places.items() if (content := digest(place)) is not None}
    kept = {name: index.files[name] for name in places}
    return changed(CodeFiles(kept, {}, tree=str(tree)), CodeFiles(digests, {}, places), used)


def _place(name: str, roots: Mapping[str, str]) -> str:
    """Where the file is that a file of a copy was copied from."""
    root = next((root for root in roots if root and name.startswith(f"{root}/")), "")
    return os.path.join(roots.get(root, ""), name[len(root) + 1 :] if root else name)


def digest(path: Path | str) -> str | None:
    """The SHA-256 of a file; None if it cannot be read, as one that was removed in the meantime."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None


def as_read(name: str, content: str) -> str:
    """How an attempt says that it used a file which is not what the copy has.

    `name`: that in the copy, or the path of a file of which there is no copy; `content`: the SHA-256 of what was read.
    """
    return f"{name}{_WITH}{content}"


def changed(old: CodeFiles, new: CodeFiles, used: Collection[str] | None) -> list[str]:
    """The files that differ and matter, sorted.

    `used`: names of those that an attempt used, or what `as_read` gives; None if that is not known.
    """
    folders = [folder for folder in sorted({*old.live, *new.live}) if old.live.get(folder) != new.live.get(folder)]
    names = used if used is not None else filter(counts, {*old.digests, *new.digests})
    return folders + sorted({name.partition(_WITH)[0] for name in names if _differs(name, old, new)})


def _differs(used: str, old: CodeFiles, new: CodeFiles) -> bool:
    name, _, content = used.partition(_WITH)
    before, after = content or old.digests.get(name), new.digests.get(name)
    if os.path.isabs(name):
        after = digest(name) or before  # of a file that is not here, as on another machine, nothing is known
    if before == after:
        return False
    if before is None or after is None or not name.endswith(".py"):
        return True
    pair = (before, after)
    if pair not in _same_syntax:
        if len(_same_syntax) >= _KEPT:
            _same_syntax.clear()
        syntax = _syntax(old.path(name), before)
        _same_syntax[pair] = syntax is not None and syntax == _syntax(new.path(name), after)
    return not _same_syntax[pair]


_same_syntax: dict[tuple[str, str], bool] = {}  # by the hashes of both files


def _syntax(path: str, content: str) -> str | None:
    """The syntax tree of a Python file as text, without positions; None if it cannot be parsed.

    `content`: its SHA-256; a trial may have changed the file since.
    """
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in the user's strings
            text = file.read()
            return ast.dump(ast.parse(text)) if hashlib.sha256(text).hexdigest() == content else None
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
