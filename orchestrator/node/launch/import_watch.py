"""Notes what a project does while it is imported that each trial should do for itself, and where it does it.

Forks share what one import has made: a temporary folder, random bytes, an exit handler that removes the folder. Nearly
all libraries do such things while they are imported, and nobody minds; so the question is who did it. That is the
nearest frame of the project, unless the import of a library lies between: then the library did it for itself.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import linecache
import os
import random
import re
import signal
import sys
import sysconfig
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

from orchestrator.node.inside.failure import is_internal, name_below
from orchestrator.node.shared.zygote_spec import ZygoteSpec

# What counts if the project does it.
EXIT_HANDLER = "registers an exit handler"
FINALIZER = "registers a finalizer"
FORK_HANDLER = "registers a handler for forks"
TEMPORARY = "makes a temporary file or folder"
RANDOM = "draws random numbers from the system"
PID = "asks for its process id"
PORT = "takes a free port"
ACTS = frozenset({EXIT_HANDLER, FINALIZER, FORK_HANDLER, TEMPORARY, RANDOM, PID, PORT})

# What counts if it is still there after the import; noted only to say where it was made.
COPY, PIPE, SOCKET, MAP, PROCESS, THREAD, TIMER = "copy", "pipe", "socket", "map", "process", "thread", "timer"

_FUNCTIONS: list[tuple[Any, str, str]] = [  # wrapped while modules are imported: there are no audit events for them
    (atexit, "register", EXIT_HANDLER),
    (weakref.finalize, "__init__", FINALIZER),
    (os, "register_at_fork", FORK_HANDLER),
    (tempfile, "mktemp", TEMPORARY),
    (os, "urandom", RANDOM),
    (os, "getrandom", RANDOM),
    (random, "_urandom", RANDOM),  # for `secrets` and numpy
    (random.Random, "seed", RANDOM),
    (os, "getpid", PID),
    (os, "dup", COPY),
    (os, "dup2", COPY),
    (os, "pipe", PIPE),
    (os, "pipe2", PIPE),
    (threading.Thread, "start", THREAD),
    (signal, "setitimer", TIMER),
    (signal, "alarm", TIMER),
]
_EVENTS = {
    "tempfile.mkdtemp": TEMPORARY,
    "tempfile.mkstemp": TEMPORARY,
    "socket.bind": PORT,
    "socket.__new__": SOCKET,
    "mmap.__new__": MAP,
    "subprocess.Popen": PROCESS,
    "os.fork": PROCESS,
    "os.posix_spawn": PROCESS,
    "open": "",  # noted by path
    "sqlite3.connect": "",
}
_IMPORT_SYSTEM = "<frozen importlib"
_STDLIB = sysconfig.get_path("stdlib") + os.sep
_PRIVATE_FINALIZERS = ("numba.", "sympy.", "torch.")  # they only free memory; each compiled function has one
_SEEDED = re.compile(r"\bRandomState\(\s*[^\s)]")  # of numpy: it draws a seed, and then takes the one that it is given


class Act(NamedTuple):
    """Something that the project did."""

    what: str
    line: str
    counts: Callable[[], bool]  # whether it still does: not a folder that is gone


class ImportWatch:
    """What was done while `watching()`; an import that is repeated adds to it."""

    def __init__(self, spec: ZygoteSpec) -> None:
        self._roots = (*spec.import_path, spec.cwd)
        self._package = spec.trainer.module.partition(".")[0]  # it may be installed, outside of these folders
        self._names: dict[str, str | None] = {}  # of each source file: what to call it if it is the project's
        self._acts: list[Act] = []
        self._lines: dict[str, str] = {}  # who did something last: by kind, and by path for files

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while modules are imported. The audit hook cannot be removed: 0.1 µs an event from then on."""
        global _watch
        if not _hooked:
            sys.addaudithook(_on_event)
            _hooked.append(True)
        _watch = self
        originals = [(owner, name, getattr(owner, name)) for owner, name, _ in _FUNCTIONS]
        for owner, name, kind in _FUNCTIONS:
            setattr(owner, name, _noting(getattr(owner, name), kind))
        try:
            yield
        finally:
            _watch = None
            for owner, name, original in originals:
                setattr(owner, name, original)

    def acts(self) -> dict[str, str]:
        """What the project did that still counts, and the line that did it first."""
        return {act.what: act.line for act in reversed(self._acts) if act.counts()}

    def line(self, kind: str) -> str:
        """The project's line that last did this, or opened the file with this path; empty if it is not known."""
        if kind.startswith(os.sep) and kind not in self._lines:
            return next((line for path, line in self._lines.items() if os.path.realpath(path) == kind), "")
        return self._lines.get(kind, "")

    def note(self, kind: str, frame: FrameType, args: tuple[Any, ...]) -> None:
        """Note that this frame did something."""
        line, own = self._find_line(frame)
        if not line:
            return
        if not kind:
            if isinstance(args[0], str | bytes):
                self._lines[os.path.abspath(os.fsdecode(args[0]))] = line
            return
        self._lines[kind] = line
        counts = self._judge(kind, frame, args) if own and kind in ACTS else None
        if counts is not None:
            self._acts.append(Act(kind, line, counts))

    def _judge(self, kind: str, frame: FrameType, args: tuple[Any, ...]) -> Callable[[], bool] | None:
        """Says until when it counts; None if it never does."""
        if kind == TEMPORARY and args and isinstance(args[0], str) and os.path.isabs(args[0]):
            return functools.partial(os.path.lexists, args[0])
        if kind == EXIT_HANDLER and _module(frame) == "weakref":
            return None  # the first finalizer registers one for all
        if kind == FINALIZER:
            return None if _module(frame).startswith(_PRIVATE_FINALIZERS) else functools.partial(_at_exit, args[0])
        if kind == PORT and (not isinstance(args[1], tuple) or args[1][1] != 0):
            return None
        if kind == PID and not (self._name(frame) or _module(frame) == "psutil"):
            return None  # most of the standard library asks, to notice a fork
        if kind == RANDOM:
            while frame.f_back is not None and _module(frame) == "random":
                frame = frame.f_back
            if isinstance(args[0], random.Random):
                if (len(args) > 1 and args[1] is not None) or not self._name(frame):
                    return None  # seeded, or tempfile's, which has a new one in each process
            elif _SEEDED.search(linecache.getline(frame.f_code.co_filename, frame.f_lineno)):
                return None
        return lambda: True

    def _find_line(self, frame: FrameType | None) -> tuple[str, bool]:
        """The nearest line of the project, and whether no import of a library lies between."""
        own = True
        while frame is not None:
            if frame.f_code.co_filename.startswith(_IMPORT_SYSTEM):
                own = False  # if a module of the project were imported here, its frame would have come first
            else:
                name = self._name(frame)
                if name:
                    return f"{name}:{frame.f_lineno}", own
            frame = frame.f_back
        return "", False

    def _name(self, frame: FrameType) -> str | None:
        file, module = frame.f_code.co_filename, _module(frame)
        if file not in self._names:
            foreign = is_internal(file) or file.startswith((_STDLIB, "<"))
            name = None if foreign else name_below(file, self._roots)
            if name is None and not foreign and module.partition(".")[0] == self._package:
                name = os.path.basename(file)
            self._names[file] = name
        return self._names[file]


_watch: ImportWatch | None = None
_hooked: list[bool] = []


def _on_event(event: str, args: tuple[Any, ...]) -> None:
    if _watch is None:
        return
    kind = _EVENTS.get(event)
    if kind is not None:
        frame = sys._getframe(1)
        if not frame.f_code.co_filename.startswith(_IMPORT_SYSTEM):  # it opens each module's file
            _watch.note(kind, frame, args)


def _noting(original: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """The function, which notes its calls as long as somebody watches; a module may keep it."""

    @functools.wraps(original)
    def noting(*args: Any, **options: Any) -> Any:
        if _watch is not None:
            _watch.note(kind, sys._getframe(1), (*args, *options.values()))
        return original(*args, **options)

    return noting


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _at_exit(finalizer: Any) -> bool:
    """Whether the finalizer is still to run when the process ends."""
    return bool(finalizer.alive and finalizer.atexit)
