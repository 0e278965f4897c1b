"""Which files of a folder belong to its code, and which are data.

Code is what git tracks, and every source file and shared library, whether git knows it or not: a trial may import it.
Data is the rest: it stays where it is, and the copy of the code has links to it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import os
import re
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.folder.code_index import IGNORED, IS_DATA, is_code
from orchestrator.model.sweep import CodeRules
from orchestrator.provenance.git import GitError, NoRepository, git

TEXTS = {".yaml", ".yml", ".json", ".toml", ".txt", ".cfg"}  # copied where git does not say what belongs to the code
NEVER = {".git", ".hg", ".svn", "__pycache__", ".venv", "site-packages", "dist-packages", "node_modules"}
OUTPUTS = {"runs", "wandb", "outputs", "multirun", "mlruns"}  # written by runs; some hold copies of their code
SECRETS = re.compile(
    r"\.env(?!\.(example|sample|template|dist)$)(\..+)?|\.?_?netrc|\.pypirc|\.git-credentials|\.htpasswd|kaggle\.json"
    r"|id_(rsa|dsa|ecdsa|ed25519)|.+\.(pem|key|p12|pfx|kdbx)|(\.|client_)?(secret|secrets|credentials)\.(json|ya?ml|toml|ini)"
)
SECRET_FOLDERS = {".ssh", ".aws", ".azure", ".gnupg", ".kube", ".docker"}
EXCLUDED = "sweep.code.exclude names it"
MAY_HOLD_SECRETS = "may hold secrets"


@dataclass(frozen=True)
class Limits:
    """How much is copied: bytes, and numbers of files."""

    file: int = 10 * 2**20  # a larger file that is neither tracked nor a source file is data
    total: int = 256 * 2**20  # a larger project is refused
    library: int = 64 * 2**20  # a larger folder beside the project is used where it is
    texts: int = 1000  # a folder with more files that git does not track, and are no source files, holds data
    entries: int = 200_000  # so much is searched for source files where git lists nothing
    links: int = 30_000  # links that the copy of one folder gets


LIMITS = Limits()
USUAL = CodeRules()


@dataclass
class ProjectFiles:
    """The files of a folder, by their names relative to it."""

    copied: dict[str, int] = field(default_factory=dict)  # sorted; sizes in bytes
    linked: list[str] = field(default_factory=list)  # data: files, and folders that hold nothing else
    left_out: dict[str, str] = field(default_factory=dict)  # a file or folder that is not copied -> why
    notes: list[str] = field(default_factory=list)  # what the user should know

    @property
    def size(self) -> int:
        """Bytes that are copied."""
        return sum(self.copied.values())

    def biggest(self) -> str:
        """The largest files, in words."""
        names = sorted(self.copied, key=lambda name: -self.copied[name])[:3]
        return ", ".join(f"{name} ({self.copied[name] / 2**20:.1f} MB)" for name in names)


def is_secret(name: str) -> bool:
    """Whether a file of this name (without folders) is known to hold passwords or keys."""
    return SECRETS.fullmatch(name) is not None


def project_files(
    project: Path, rules: CodeRules = USUAL, apart: Collection[Path] = (), limits: Limits = LIMITS
) -> ProjectFiles:
    """Look through a folder. `apart`: folders in it that are no part of it, such as that of all sweeps."""
    search = _Search(project, rules, {os.path.realpath(path) for path in apart}, limits)
    search.run()
    return search.result()


class Patterns:
    """Patterns over relative names, as in `sweep.code`. A pattern that matches a folder matches all below it."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = {each: re.compile(_pattern(each)) for each in patterns}
        self._starts = [re.split(r"[*?\[]", each.strip("/"), maxsplit=1)[0] for each in patterns]

    def match(self, name: str) -> bool:
        return any(pattern.match(name) for pattern in self._patterns.values())

    def may_match_below(self, folder: str) -> bool:
        """Whether a file in this folder may match."""
        below = folder + "/"
        return any(start.startswith(below) or below.startswith(start) for start in self._starts)

    def without(self, names: Iterable[str]) -> list[str]:
        """The patterns that match none of these names."""
        listed = list(names)
        return [text for text, each in self._patterns.items() if not any(map(each.match, listed))]


def _pattern(text: str) -> str:
    plain = text.removeprefix("./").rstrip("/")
    return f"{fnmatch.translate(plain)}|{fnmatch.translate(plain + '/*')}"


@dataclass(frozen=True)
class _Folder:
    """A folder to look into. `rule` says which files in it are code, besides source files.

    git: those that git lists. plain: texts. ignored: none.
    """

    name: str  # "" for the project itself
    real: str
    rule: str
    above: frozenset[str] = frozenset()  # the real paths of the folders that it is in


class _Search:
    def __init__(self, project: Path, rules: CodeRules, apart: set[str], limits: Limits) -> None:
        self._project, self._real = str(project), os.path.realpath(project)
        self._limits, self._apart = limits, apart
        self._include, self._exclude = Patterns(rules.include), Patterns(rules.exclude)
        self._named = frozenset(rules.include)  # a pattern that says more than one name does not mean a secret file
        self._listed: dict[str, bool] = {}  # what git lists -> whether it is tracked
        self._listed_folders: set[str] = set()
        self._folders: list[str] = []
        self._never: list[str] = []  # neither copied nor linked
        self._data: dict[str, list[str]] = {}  # by folder: names of files that are not copied
        self._excluded: list[str] = []
        self._later: deque[_Folder] = deque()
        self._seen = 0  # entries of folders that git does not list
        self._found = ProjectFiles()

    def run(self) -> None:
        rule = "git" if self._list("") else "plain"  # git lists nothing if it ignores the whole project
        waiting = deque([_Folder("", self._real, rule)])
        while waiting:
            waiting.extend(self._look_into(waiting.popleft()))
            if not waiting:  # what is excluded comes last: there may be much of it
                waiting, self._later = self._later, deque()

    def result(self) -> ProjectFiles:
        found = self._found
        found.copied = dict(sorted(found.copied.items()))
        real = {""}.union(*map(parents, found.copied), *map(parents, self._never))  # folders, not links, in the copy
        data = [name for name in self._folders if name not in real and _parent(name) in real]
        found.linked = sorted(set(data) - set(self._never))
        for folder in sorted(real & self._data.keys()):
            if len(self._data[folder]) <= self._limits.links:
                found.linked += self._data[folder]
            else:
                why = f"{len(self._data[folder])} files in it are data, too many for links: only the project has them"
                found.left_out[folder or "."] = why
                found.notes.append(f"{folder or '.'}: {why}")
        for name in found.linked:
            found.left_out.setdefault(name, IGNORED if self._listed else IS_DATA)
        unused = [f"include: {each!r}" for each in self._include.without(found.copied)]
        unused += [f"exclude: {each!r}" for each in self._exclude.without(self._excluded)]
        found.notes += [f"sweep.code.{each} matches no file" for each in unused]
        return found

    def _list(self, folder: str) -> bool:
        """Add what git lists in this folder, the project or a repository in it. False: it lists nothing."""
        try:
            options = ("-z", "-t", "--cached", "--others", "--exclude-standard")
            listed = git(Path(self._project, folder), "ls-files", *options)
        except NoRepository:
            return False
        except GitError as error:
            where = f"{folder}: " if folder else ""
            copied = "source files and texts are copied, whether git ignores them or not"
            self._found.notes.append(f"{where}{error}: {copied}")
            return False
        below = f"{folder}/" if folder else ""
        for line in filter(None, os.fsdecode(listed).split("\0")):
            name = below + line[2:].rstrip("/")  # a repository that is no submodule ends with a slash
            self._listed[name] = line[0] != "?"
            self._listed_folders.update(parents(name))
        return bool(listed)

    def _look_into(self, folder: _Folder) -> list[_Folder]:
        """Sort the files of a folder; returns the folders in it to look into."""
        left = self._limits.entries - self._seen if folder.rule != "git" else 2**40
        try:
            with os.scandir(os.path.join(self._project, folder.name)) as opened:
                entries = list(itertools.islice(opened, max(0, left) + 1))
        except OSError as error:
            self._miss(folder.name, f"cannot be read: {error.strerror}")
            return []
        if len(entries) > left:
            self._miss(folder.name, f"not searched for source files: there are more than {self._limits.entries} others")
            return []
        names = {entry.name for entry in entries}
        if folder.name and (names & {"pyvenv.cfg", "conda-meta"} or _is_sweep(names)):
            self._never.append(folder.name)  # an environment, or a sweep's folder
            return []
        if folder.rule != "git":
            self._seen += len(entries)
        elif folder.name and ".git" in names and not self._list(folder.name):
            folder = replace(folder, rule="plain")
        below: list[_Folder] = []
        data: list[str] = []
        texts: dict[str, int] = {}
        for entry in entries:
            name = f"{folder.name}/{entry.name}" if folder.name else entry.name
            with contextlib.suppress(OSError):  # it was removed in the meantime, or is a link that leads in a circle
                if entry.name == ".git":
                    self._never.append(name)  # of a submodule or a worktree it is a file that leads to the repository
                elif entry.is_dir():
                    below += self._sub_folder(folder, entry, name)
                elif entry.is_file():
                    self._sort(folder, entry, name, data, texts)
        if len(texts) > self._limits.texts:
            self._found.left_out[folder.name or "."] = f"{len(texts)} files in it that git does not track: data"
            data += texts
        else:
            self._found.copied.update(texts)
        self._data[folder.name] = data
        return below

    def _miss(self, name: str, why: str) -> None:
        """Say of a folder that it could hold source files, and was not looked into."""
        self._found.left_out[name or "."] = why
        if not self._exclude.match(name) and not any(why in note for note in self._found.notes):
            self._found.notes.append(f"{name or '.'}: {why}")

    def _sub_folder(self, folder: _Folder, entry: os.DirEntry[str], name: str) -> list[_Folder]:
        """The folder, in a list, if it is to be looked into."""
        listed = name in self._listed or name in self._listed_folders
        real, above = os.path.join(folder.real, entry.name), folder.above | {folder.real}
        if entry.is_symlink():
            real = os.path.realpath(real)
            if real in above or f"{self._real}/".startswith(real.rstrip("/") + "/"):
                return []  # a circle
        package = entry.name in OUTPUTS and os.path.exists(os.path.join(entry.path, "__init__.py"))
        wanted = listed or package or self._include.may_match_below(name)
        if entry.name in NEVER or real in self._apart or (entry.name == "runs" and not wanted):
            self._never.append(name)
            return []
        if entry.name in SECRET_FOLDERS:
            self._found.left_out[name] = MAY_HOLD_SECRETS
            self._never.append(name)
            return []
        self._folders.append(name)
        if entry.is_symlink() and NEVER.intersection(real.split("/")):
            self._found.left_out[name] = "it leads to installed packages"
        elif not wanted and (entry.name in OUTPUTS or entry.name.startswith(".")):
            self._found.left_out[name] = "folders of this name are not searched for source files"
        else:
            rule = "ignored" if folder.rule == "ignored" else "plain"
            if folder.rule == "git":
                rule = "ignored" if not listed else "plain" if entry.is_symlink() else "git"
            found = _Folder(name, real, rule, above)
            if not self._exclude.match(name):
                return [found]
            self._found.left_out[name] = EXCLUDED
            self._later.append(found)
        return []

    def _sort(
        self, folder: _Folder, entry: os.DirEntry[str], name: str, data: list[str], texts: dict[str, int]
    ) -> None:
        """Put one file where it belongs: it is copied, or it is data, or a text of which a folder may have too many."""
        included = self._include.match(name)
        if is_secret(entry.name) and name not in self._named:
            self._found.left_out[name] = MAY_HOLD_SECRETS
            self._never.append(name)  # no link either: the copy may lie where others can read
            return
        if not included and self._exclude.match(name):
            self._found.left_out[name] = EXCLUDED
            self._excluded.append(name)
            if is_code(entry.name):
                self._never.append(name)  # nothing is imported that was not kept
                return
        elif included or is_code(entry.name) or (self._listed.get(name) and not entry.is_symlink()):
            self._found.copied[name] = entry.stat().st_size
            return
        elif name in self._listed or (folder.rule == "plain" and Path(name).suffix in TEXTS):
            size = entry.stat().st_size
            if size <= self._limits.file:
                texts[name] = size
                return
            self._found.left_out[name] = f"{size / 2**20:.0f} MB, and no source file"
        data.append(name)


def _is_sweep(names: Collection[str]) -> bool:
    """Whether a folder with these names in it is a sweep's."""
    return "manifest.db" in names and ("trials" in names or "requests" in names)


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def parents(name: str) -> list[str]:
    """All folders above a name, but for the project itself."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]
