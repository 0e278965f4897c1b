"""Notes which files of the sweep's copy of the code a process imports, runs or opens.

An audit hook sees modules and scripts when their code is run, and what Python opens. It costs a fraction of a
microsecond an event, and cannot be removed. A zygote collects names for all its trials; a trial, and what it forks,
writes each further name into its journal. What cannot be seen into makes all of it unknown: other programs that may
use files of the project. Files that a library opens in C++ are not seen. A file that is read where it is, and is not
what the copy has, is noted with its hash.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orchestrator import naming
from orchestrator.files import PACKAGE
from orchestrator.folder.code_index import Index, is_code
from orchestrator.node.shared.journal import JournalWriter

_MANY = 4096  # paths outside of the code that are remembered

_used: UsedFiles | None = None
_hooked: list[bool] = []


class UsedFiles:
    """The names in the copy of the files that were used so far."""

    def __init__(self, tree: str, index: Index) -> None:
        folders = {live: name for name, live in index.roots.items()}
        inner_first = sorted(folders, key=len, reverse=True)
        places = [(os.path.realpath(tree), ""), (tree, ""), *((folder, folders[folder]) for folder in inner_first)]
        self._places = [(folder.rstrip(os.sep) + os.sep, name and f"{name}/") for folder, name in places]
        self._copies = tuple(folder for folder, _ in self._places[:2])
        self._live: set[str] = set()  # read from the project itself: code, and what is not as in the copy
        self._looked_at: set[str] = set()  # what this process has read from the project itself
        self._starts = tuple(folder for folder, _ in self._places)
        self._known = index.files
        self._names: set[str] = set()
        self._others: set[str] = set()  # paths that are no code
        self._unknown = False
        self._writer: JournalWriter | None = None  # of the trial, once it runs
        self._text = (-1, "")  # how many names there were, and all of them as JSON

    def prepare(self) -> None:
        """Make ready what is known by now, for the trial that comes next."""
        if self._text[0] != len(self._names):
            self._text = len(self._names), json.dumps(sorted(self._names))

    def enter_trial(self, writer: JournalWriter) -> None:
        """From now on this process is a trial: further names go into its journal."""
        self._writer = writer
        self._looked_at.clear()  # they may have been edited since

    def tell(self, writer: JournalWriter) -> None:
        """At the end of a trial: write what was known before it began."""
        writer.used_before("null" if self._unknown else self._text[1])

    def saw(self, path: str, linked: bool = False) -> None:
        """A file was used. `linked`: its path may lead through links."""
        if path in self._others:
            return
        whole = os.path.abspath(path)
        name = self._name(whole) or (self._name(os.path.realpath(path)) if linked else None)
        if whole.startswith(self._starts) and not whole.startswith(self._copies):
            if is_code(path) and not path.endswith(".pyc"):
                self._live.add(whole)
            if name is not None and whole not in self._looked_at:
                self._looked_at.add(whole)  # before it is opened here
                if self._read(name, whole):
                    self._live.add(whole)
        elif name is not None:
            self._note(name)
        if name is None and len(self._others) < _MANY:
            self._others.add(path)

    def saw_module(self, path: str) -> None:
        """A module was imported from where it is, of which the copy has nothing."""
        if self._name(os.path.abspath(path)) is None and self._name(os.path.realpath(path)) is None:
            self._read(os.path.realpath(path), path)

    def _read(self, name: str, path: str) -> bool:
        """Note a file that was read where it is; returns whether the copy has other text. `name`: there, or `path`."""
        from orchestrator.folder.code_changes import as_read, digest  # loads OpenSSL, which few trials need

        content = digest(path)
        other = content is not None and content != self._known.get(name)
        self._note(as_read(name, content) if content is not None and other else name)
        return other

    def _note(self, name: str) -> None:
        if name not in self._names:
            self._names.add(name)
            if self._writer is not None:
                self._writer.used(name)

    def live(self, trial: str) -> list[str]:
        """What was read from the project itself and matters; what trials write into the sweep's folder does not."""
        if not self._live:
            return []
        sweep = os.path.realpath(os.path.join(trial, "..", "..")) if trial else ""
        no_project = tuple(folder.rstrip(os.sep) + os.sep for folder in (sweep, sys.prefix, PACKAGE) if folder)
        return sorted(
            path
            for path in self._live
            if "/site-packages/" not in path and not os.path.realpath(path).startswith((*self._copies, *no_project))
        )

    def cannot_know(self) -> None:
        """Something was done that may use any file."""
        if not self._unknown:
            self._unknown = True
            if self._writer is not None:
                self._writer.used(None)

    def started(self, words: Iterable[str]) -> None:
        """Another program was started, with this command line."""
        if any("python" in os.path.basename(word) or self._name(os.path.abspath(word)) is not None for word in words):
            self.cannot_know()

    def _name(self, path: str) -> str | None:
        """The name in the copy of the file at an absolute path; None if it is no file of the code."""
        if path.startswith(self._starts):
            for folder, below in self._places:
                if path.startswith(folder):
                    name = below + path[len(folder) :]
                    return name if name in self._known else None
        return None


def watch(tree: str, index: Index) -> None:
    """Begin with it, for this copy."""
    global _used
    _used = UsedFiles(tree, index)
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_on_event)


def prepare() -> None:
    """Before a trial's process exists: see `UsedFiles`, as of the other functions here."""
    if _used is not None:
        _used.prepare()


def enter_trial(writer: JournalWriter) -> None:
    if _used is not None:
        _used.enter_trial(writer)


def tell(writer: JournalWriter) -> None:
    if _used is not None:
        _used.tell(writer)


def name_live_code(notice: Callable[[str], None], trial: str) -> None:
    """At the end of a trial: say what was read from the project itself. `trial`: its folder in the sweep's."""
    names = _used.live(trial) if _used is not None else []
    if names:
        notice(
            f"read from the project itself, not from the sweep's copy of the code: {naming.some(names)}; an edit "
            "reaches trials that run now and later (a path that begins with Path(__file__).parent leads to the copy)"
        )


def saw_module(path: str) -> None:
    if _used is not None:
        _used.saw_module(path)


def cannot_know() -> None:
    if _used is not None:
        _used.cannot_know()


def _on_open(used: UsedFiles, path: Any, mode: Any, flags: Any) -> None:
    if (mode[:1] in "wxa" if mode else (flags & os.O_ACCMODE) == os.O_WRONLY) or isinstance(path, int):
        return
    used.saw(os.fsdecode(path))


def _on_exec(used: UsedFiles, code: Any) -> None:
    name = getattr(code, "co_filename", "<")
    if not name.startswith("<"):
        used.saw(name, linked=True)


def _on_import(used: UsedFiles, module: Any, path: Any, *_: Any) -> None:
    if path:  # a library in C; others come as `exec`
        used.saw(os.fsdecode(path), linked=True)


def _on_program(used: UsedFiles, program: Any, words: Any = (), *_: Any) -> None:
    given = [words] if isinstance(words, (str, bytes)) else list(words or ())
    texts = [os.fsdecode(word) for word in [program, *given] if word]
    used.started(part for text in texts for part in (text, *_split(text)))


def _split(text: str) -> list[str]:
    """The words of a command line, if that is what it is."""
    try:
        return shlex.split(text) if " " in text else []
    except ValueError:
        return text.split()


def _on_spawn(used: UsedFiles, mode: Any, *rest: Any) -> None:
    _on_program(used, *rest)


_KINDS: Mapping[str, Callable[..., None]] = {
    "open": _on_open,
    "exec": _on_exec,
    "import": _on_import,
    "subprocess.Popen": _on_program,
    "os.system": _on_program,
    "os.exec": _on_program,
    "os.posix_spawn": _on_program,
    "os.spawn": _on_spawn,
}


def _on_event(event: str, args: tuple[Any, ...]) -> None:
    kind = _KINDS.get(event)
    if kind is not None and _used is not None:
        try:
            kind(_used, *args)
        except Exception:  # an odd argument, which whoever asks for it will hear about
            _used.cannot_know()
