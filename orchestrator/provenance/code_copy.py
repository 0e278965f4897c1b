"""The copy of a project's code: its files, links to its data, and an index of both in a file beside it.

Trials write into the copy what they would write beside their code. So only what the index names is code.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.files import new_folder, replacing
from orchestrator.folder.code_changes import digest
from orchestrator.folder.code_index import Index, index_of, write_index

_INDEX, _FILES = "index.json", "files/"  # the names in an archive


class ChangedMeanwhile(Exception):
    """A file of the project changed between the time when it was read and the time when it was copied."""


def content_hash(digests: Mapping[str, str]) -> str:
    """Hash of the names and contents of files."""
    total = hashlib.sha256()
    for name in sorted(digests):
        total.update(os.fsencode(f"{name}\0{digests[name]}\n"))
    return total.hexdigest()[:12]


def put(tree: Path, index: Index, sources: Mapping[str, str]) -> None:
    """Make the copy what its index says: create it, or put right what a trial has changed in it.

    Raises ChangedMeanwhile, OSError.
    """
    if tree.is_dir():
        write_index(tree, index)
        for name in changed(tree, index):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            with replacing(tree / name) as draft:
                _copy_file(sources[name], draft, index.files[name])
    else:
        with new_folder(tree) as draft:
            for folder in {os.path.dirname(name) for name in index.files}:
                (draft / folder).mkdir(parents=True, exist_ok=True)
            for name, content in index.files.items():
                _copy_file(sources[name], draft / name, content)
            write_index(tree, index)
    link(tree, index.links)


def changed(tree: Path, index: Index) -> list[str]:
    """The files of the copy that are not as its index says."""
    return [name for name, content in index.files.items() if digest(tree / name) != content]


def missing_data(tree: Path) -> list[str]:
    """The data of the project that this machine does not have."""
    index = index_of(tree)
    return [name for name, place in index.links.items() if not os.path.exists(place)] if index else []


def _copy_file(source: str, copy: Path, content: str) -> None:
    try:
        data = Path(source).read_bytes()
        if hashlib.sha256(data).hexdigest() != content:
            raise ChangedMeanwhile(source)
        copy.write_bytes(data)
        shutil.copystat(source, copy)
    except FileNotFoundError as error:
        raise ChangedMeanwhile(source) from error


def link(tree: Path, links: Mapping[str, str]) -> None:
    """Link to the data that this machine has, where nothing is in the way, such as what a trial has written."""
    for name, place in links.items():
        path = tree / name
        with contextlib.suppress(OSError):
            if path.is_symlink() and os.readlink(path) != place:
                path.unlink()
            if not os.path.lexists(path) and os.path.exists(place):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(place)


# ---------------------------------------------------------------- sent to a node


def pack(tree: Path) -> bytes:
    """The copy as an archive, for nodes that do not see the sweep's folder. Data is not in it."""
    index = index_of(tree) or Index({name: digest(tree / name) or "" for name in file_names(tree)})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
        text = index.to_json()
        entry = tarfile.TarInfo(_INDEX)
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
        for name in index.files:
            archive.add(os.path.realpath(tree / name), _FILES + name, recursive=False)
    return buffer.getvalue()


def unpack(data: bytes, tree: Path) -> None:
    """Undo `pack`, or put right what a trial has changed. Several workers of a node may do this at once."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        text = archive.extractfile(_INDEX)
        assert text is not None
        index = Index.from_json(text.read())
        if tree.is_dir():
            _extract(archive, changed(tree, index), tree)
            write_index(tree, index)
        else:
            with new_folder(tree) as draft:
                _extract(archive, index.files, draft)
                write_index(tree, index)
    link(tree, index.links)


def _extract(archive: tarfile.TarFile, names: Iterable[str], folder: Path) -> None:
    for name in names:
        entry = archive.getmember(_FILES + name)
        content = archive.extractfile(entry)
        assert content is not None
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, tag=f".{os.getpid()}") as draft:
            draft.write_bytes(content.read())
            draft.chmod(entry.mode)


def file_names(tree: Path) -> list[str]:
    """The files that belong to a copy."""
    index = index_of(tree)
    if index is not None:
        return list(index.files)
    found: list[str] = []
    for folder, below, names in os.walk(tree):
        below[:] = [name for name in below if name != "__pycache__"]
        found += [os.path.relpath(os.path.join(folder, name), tree) for name in names]
    return sorted(found)  # of a copy that version 0.1 has made
