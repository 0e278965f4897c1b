"""What a copy of the code holds, in a file beside it. A trial reads it, so this module imports little."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import naming
from orchestrator.files import replacing

SOURCES = {".py", ".pyx", ".pxd", ".c", ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h", ".hpp", ".rs", ".jl", ".sh"}
BINARIES = {".so", ".pyd", ".dylib", ".pyc"}  # imported as they are; caches (__pycache__) are left out
LIBRARIES = ".libraries"  # the folder in a copy that holds those beside the project
NOT_CODE = ("tests/", "docs/")
IGNORED, IS_DATA = "git ignores it", "it is data"  # why it is left out
_DATA = (IGNORED, IS_DATA)
_CODE = SOURCES | BINARIES
_VERSIONED = re.compile(r".+\.so(\.\d+)+")


def is_code(name: str) -> bool:
    """Whether a file of this name can be imported or compiled."""
    return name[name.rfind(".") :] in _CODE or (".so." in name and _VERSIONED.fullmatch(name) is not None)


def counts(name: str) -> bool:
    """Whether a change of this file of a copy may change results, where nobody knows which files were used."""
    if name.startswith(LIBRARIES + "/"):
        name = name.split("/", 2)[2]
    return is_code(name) and not name.startswith(NOT_CODE)


@dataclass(frozen=True)
class Index:
    """What a copy of the code holds. Names are relative to the copy."""

    files: Mapping[str, str]  # the SHA-256 of each file
    roots: Mapping[str, str] = field(default_factory=dict)  # folder in the copy ("": all of it) -> what it is a copy of
    links: Mapping[str, str] = field(default_factory=dict)  # where data is
    left_out: Mapping[str, str] = field(default_factory=dict)  # why this is not in the copy
    live: Mapping[str, str] = field(default_factory=dict)  # a folder that trials import from where it is -> its hash

    @classmethod
    def from_json(cls, text: bytes) -> Index:
        return cls(**json.loads(text))

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), indent=0).encode("ascii")  # escapes names that are not UTF-8


def left_out_in_words(left_out: Mapping[str, str], kinds: Collection[str] = ()) -> list[str]:
    """What is not in a copy, by the reason, a text each: "a.bin, b.bin and 3 more (sweep.code.exclude names it)".

    `kinds`: only for these reasons. Data that git ignores is left where it is, and is no news.
    """
    names: dict[str, list[str]] = {}
    for name, why in left_out.items():
        if why in kinds or (not kinds and why not in _DATA):
            names.setdefault(why, []).append(name)
    return [f"{naming.some(sorted(found))} ({why})" for why, found in sorted(names.items())]


def index_of(tree: Path) -> Index | None:
    """The index of a copy; None for one that version 0.1 has made."""
    try:
        return Index.from_json(_index_path(tree).read_bytes())
    except FileNotFoundError:
        return None


def write_index(tree: Path, index: Index) -> None:
    with replacing(_index_path(tree), tag=f".{os.getpid()}") as draft:
        draft.write_bytes(index.to_json())


def _index_path(tree: Path) -> Path:
    return tree.with_name(f"{tree.name}.json")
