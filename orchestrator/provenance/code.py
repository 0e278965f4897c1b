"""Keeps a copy of the project's code, named by the hash of its content, and finds changes of the code."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.errors import ConfigError, ManifestError
from orchestrator.folder.code_changes import CodeFiles, digest
from orchestrator.folder.code_index import LIBRARIES, Index, counts, index_of, is_code, left_out_in_words, write_index
from orchestrator.interpreter import import_folders
from orchestrator.model.sweep import CodeRules
from orchestrator.provenance import code_copy, libraries
from orchestrator.provenance.code_copy import ChangedMeanwhile, content_hash
from orchestrator.provenance.project_files import (
    EXCLUDED,
    LIMITS,
    MAY_HOLD_SECRETS,
    USUAL,
    Limits,
    ProjectFiles,
    project_files,
)

_TRIES = 3


@dataclass(frozen=True)
class Code:
    """The project's files as they were when a sweep was planned."""

    code: str  # hash of the source files
    tree: str  # hash of all files: the name of the copy
    path: Path  # the copy
    left_out: Mapping[str, str]  # what was not copied, and why
    notes: tuple[str, ...]  # what the user should know


@dataclass
class _Gathered:
    """What belongs to the code of a sweep, of the project and of folders beside it. Names are those in the copy."""

    sources: dict[str, str] = field(default_factory=dict)  # a name -> the file
    roots: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    live: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, root: str, folder: Path, files: ProjectFiles) -> None:
        below = f"{root}/" if root else ""
        self.roots[root] = str(folder)
        self.sources |= {below + name: str(folder / name) for name in files.copied}
        self.links |= {below + name: str(folder / name) for name in files.linked}
        self.left_out |= {below + name: why for name, why in files.left_out.items()}
        self.notes += files.notes

    def digests(self) -> dict[str, str]:
        """The hash of each file that can be read; says which cannot."""
        found = {}
        for name, path in self.sources.items():
            content = digest(path)
            if content is not None:
                found[name] = content
            elif os.path.exists(path):
                self.left_out[name] = "cannot be read"
                self.notes.append(f"{name}: cannot be read, and is not copied")
        return found


def import_path(tree: Path) -> tuple[str, ...]:
    """The folders that a trial puts first on sys.path."""
    return tuple(map(str, import_folders(tree)))


def keep_code(project: Path, store: Path, rules: CodeRules = USUAL, limits: Limits = LIMITS) -> Code:
    """Copy the project's code to `store`/<hash>, which is in a sweep's folder. A copy that exists is put right.

    Raises ConfigError if the project is too large, ManifestError if the copy cannot be written.
    """
    for _ in range(_TRIES):
        gathered = _gather(project, store.parent.parent, rules, limits)
        digests = gathered.digests()
        tree = store / content_hash(digests)
        index = Index(digests, gathered.roots, gathered.links, gathered.left_out, gathered.live)
        try:
            code_copy.put(tree, index, gathered.sources)
        except ChangedMeanwhile:
            continue
        except OSError as error:
            raise ManifestError(
                f"cannot keep a copy of the code: {error.strerror or error}",
                where=str(error.filename or tree),
                fix="free space on the disk, make the folder writable, or choose another with --runs DIR",
            ) from error
        notes = tuple(dict.fromkeys([*_of_left_out(gathered.left_out), *gathered.notes]))
        return Code(source_hash(digests, gathered.live), tree.name, tree, gathered.left_out, notes)
    raise ConfigError(
        "its files change while they are copied", where=str(project), fix="wait until nothing writes to them any more"
    )


def _of_left_out(left_out: Mapping[str, str]) -> list[str]:
    """What the user may have thought to be in the copy."""
    excluded = left_out_in_words(left_out, [EXCLUDED])
    secret = left_out_in_words(left_out, [MAY_HOLD_SECRETS])
    told = [f"left out of the copy of the code: {text}" for text in excluded]
    how = "sweep.env names variables that trials get"
    return told + [f"never copied, nor linked to: {text}; {how}" for text in secret]


def code_today(project: Path, runs: Path, rules: CodeRules = USUAL) -> CodeFiles:
    """The files that a copy would have now. `runs`: the folder of all sweeps."""
    gathered = _gather(project, runs, rules, LIMITS)
    return CodeFiles(gathered.digests(), gathered.live, gathered.sources)


def check_copy(tree: Path) -> None:
    """Raise ManifestError if the code of a sweep is not what it was when the sweep was planned."""
    index = index_of(tree)
    if index is None:
        return
    fix = "orchestrate sweep … --rerun failed runs them with today's code"
    changed = code_copy.changed(tree, index)
    if changed:
        raise ManifestError(f"the copy of the code has changed: {', '.join(changed[:3])}", where=str(tree), fix=fix)
    for folder, known in index.live.items():
        if _live_hash(Path(folder), project_files(Path(folder))) != known:
            raise ManifestError("has changed, and trials import from it where it is", where=folder, fix=fix)


def link_data(tree: Path, project: Path, runs: Path, rules: CodeRules = USUAL) -> None:
    """Have a copy link to the data that lies beside the code today: data is no code. `runs`: the folder of all sweeps.

    The links stay as they are where the project is not as it was, or not here.
    """
    index = index_of(tree)
    if index is None:
        return
    try:
        today = _gather(project, runs, rules, LIMITS).links
    except (ConfigError, OSError):
        return
    links = {**index.links, **{name: place for name, place in today.items() if name not in index.files}}
    write_index(tree, replace(index, links=links))
    code_copy.link(tree, links)


def _gather(project: Path, runs: Path, rules: CodeRules, limits: Limits) -> _Gathered:
    gathered = _Gathered()
    files = project_files(project, rules, (runs,), limits)
    if files.size > limits.total:
        raise ConfigError(
            f"the project has {files.size / 2**20:.0f} MB of files; a sweep copies at most {limits.total >> 20} MB; "
            f"the biggest: {files.biggest()}",
            where=str(project),
            fix="name data in .gitignore, or in sweep.code: {exclude: [data/*]}",
        )
    gathered.add("", project, files)
    for folder in libraries.folders(project):
        _add_library(gathered, folder, project_files(folder, apart=(runs, project), limits=limits), limits)
    return gathered


def _add_library(gathered: _Gathered, folder: Path, files: ProjectFiles, limits: Limits) -> None:
    """Add a folder beside the project: all of it, or only its hash if it is large."""
    if files.size <= limits.library:
        taken = [root for root in gathered.roots if root.rpartition("~")[0] == f"{LIBRARIES}/{folder.name}"]
        gathered.add(f"{LIBRARIES}/{folder.name}~{len(taken) + 1}", folder, files)
    else:
        gathered.live[str(folder)] = _live_hash(folder, files)
        gathered.notes.append(
            f"{folder} is imported from where it is: {files.size / 2**20:.0f} MB are too much to copy; "
            "an edit reaches running trials"
        )


def _live_hash(folder: Path, files: ProjectFiles) -> str:
    """Hash of the names, sizes and times of source files: there are too many to read them each time."""
    total = hashlib.sha256()
    for name, size in files.copied.items():
        if is_code(name):
            total.update(os.fsencode(f"{name}\0{size}\0{(folder / name).stat().st_mtime_ns}\n"))
    return total.hexdigest()[:12]


def source_hash(digests: Mapping[str, str], live: Mapping[str, str]) -> str:
    """Hash of the source files."""
    return content_hash({**{name: digests[name] for name in digests if counts(name)}, **live})


def difference(differing: Mapping[str, CodeFiles], today: CodeFiles) -> str:
    """Changes in words: "train.py +12 −3, data.py +1 −1". `differing`: files, and the copies that they differ from.

    Without numbers are files that an attempt has read elsewhere, not in its copy: what it read is not kept.
    """
    changes = []
    for name, old in differing.items():
        lines = list(difflib.unified_diff(*_texts(name, old, today), n=0))[2:]
        plus, minus = (sum(line.startswith(sign) for line in lines) for sign in "+-")
        changes.append(f"{name} +{plus} −{minus}" if lines else name)
    more = f", and {len(changes) - 3} more" if len(changes) > 3 else ""
    return ", ".join(changes[:3]) + more


def code_diff(differing: Mapping[str, CodeFiles], today: CodeFiles) -> Iterator[str]:
    """The same changes line by line, as `diff -u` shows them."""
    for name, old in differing.items():
        yield from difflib.unified_diff(*_texts(name, old, today), f"then/{name}", f"now/{name}", lineterm="")
        if old.digests.get(name) == today.digests.get(name):
            yield f"{name} has changed: trials read it where it is, and what they read is not kept"


def _texts(name: str, old: CodeFiles, new: CodeFiles) -> tuple[list[str], list[str]]:
    return _lines(old, name), _lines(new, name)


def _lines(files: CodeFiles, name: str) -> list[str]:
    if name not in files.digests:
        return []
    try:
        return Path(files.path(name)).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
