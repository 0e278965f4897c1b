"""Keeps a copy of the project's code, named by the hash of its content, and finds changes of the code."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import ConfigError, ManifestError
from orchestrator.model.sweep import CodeRules
from orchestrator.provenance import code_copy, libraries
from orchestrator.provenance.code_copy import ChangedMeanwhile, content_hash, digest
from orchestrator.provenance.code_index import Index, index_of
from orchestrator.provenance.project_files import LIMITS, USUAL, Limits, ProjectFiles, is_code, project_files

NOT_CODE = ("tests/", "docs/")
LIBRARIES = ".libraries"  # the folder in a copy that holds those of `libraries.folders`
_TRIES = 3


@dataclass(frozen=True)
class Code:
    """The project's files as they were when a sweep was planned."""

    code: str  # hash of the source files: a finished trial is stale if it has changed
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
    source = tree / "src"
    return (str(tree), str(source)) if source.is_dir() else (str(tree),)


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
        notes = tuple(dict.fromkeys(gathered.notes))
        return Code(_source_hash(digests, gathered.live), tree.name, tree, gathered.left_out, notes)
    raise ConfigError(
        "its files change while they are copied", where=str(project), fix="wait until nothing writes to them any more"
    )


def code_hash(project: Path, runs: Path, rules: CodeRules = USUAL) -> str:
    """Hash of the source files. A finished trial is stale if it has changed. `runs`: the folder of all sweeps."""
    gathered = _gather(project, runs, rules, LIMITS)
    gathered.sources = {name: path for name, path in gathered.sources.items() if _counts(name)}
    return _source_hash(gathered.digests(), gathered.live)


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


def _source_hash(digests: Mapping[str, str], live: Mapping[str, str]) -> str:
    return content_hash({**{name: digests[name] for name in digests if _counts(name)}, **live})


def _counts(name: str) -> bool:
    """Whether a change of the file makes results stale."""
    if name.startswith(LIBRARIES + "/"):
        name = name.split("/", 2)[2]
    return is_code(name) and not name.startswith(NOT_CODE)


def difference(old: Path, project: Path, runs: Path, rules: CodeRules = USUAL) -> str:
    """The changes of the source files since a copy was made, in words: "train.py +12 −3, data.py +1 −1"."""
    today = {name: Path(path) for name, path in _gather(project, runs, rules, LIMITS).sources.items()}
    changes = []
    for name in sorted(filter(_counts, {*code_copy.file_names(old), *today})):
        before, after = _lines(old / name), _lines(today.get(name, Path(os.devnull)))
        if before == after:
            continue
        lines = list(difflib.unified_diff(before, after, n=0))[2:]
        plus = sum(line.startswith("+") for line in lines)
        minus = sum(line.startswith("-") for line in lines)
        changes.append(f"{name} +{plus} −{minus}")
    more = f", and {len(changes) - 3} more" if len(changes) > 3 else ""
    return ", ".join(changes[:3]) + more


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
