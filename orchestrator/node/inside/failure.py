"""An exception of the trainer, told the way its author wants to read it."""

from __future__ import annotations

import bdb
import os
import traceback
from collections.abc import Iterable

from orchestrator.files import PACKAGE
from orchestrator.model.events import Failure

_OURS = PACKAGE + os.sep
_LONGEST = 20_000  # characters of a traceback; the middle of a longer one is left out


def describe(error: BaseException, roots: Iterable[str]) -> Failure:
    """Type, message, last frame of the user's code below `roots`, and a traceback without frames of ours."""
    told = traceback.TracebackException.from_exception(error, capture_locals=False)
    _strip(told, set())
    text = "".join(told.format())
    if len(text) > _LONGEST:
        half = _LONGEST // 2
        text = f"{text[:half]}\n  ... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return Failure(_type_name(type(error)), _message(error), _where(told, error, tuple(roots)), text)


def _type_name(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    if isinstance(error, bdb.BdbQuit):
        return "breakpoint() needs a terminal: orchestrate try runs a trial in yours"
    try:
        return str(error)
    except Exception as broken:
        return f"(its message cannot be shown: {type(broken).__name__})"


def hidden(filename: str) -> bool:
    """Whether a frame in this file tells the user nothing: it is ours, or of the import system."""
    return filename.startswith((_OURS, "<frozen importlib")) or filename.endswith(f"importlib{os.sep}__init__.py")


def _strip(told: traceback.TracebackException, seen: set[int]) -> None:
    if id(told) in seen:
        return
    seen.add(id(told))
    told.stack[:] = [frame for frame in told.stack if not hidden(frame.filename)]
    for other in (told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or ())):
        if other is not None:
            _strip(other, seen)


def _where(told: traceback.TracebackException, error: BaseException, roots: tuple[str, ...]) -> str:
    frames = [(frame.filename, frame.lineno) for frame in told.stack]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    for filename, line in reversed(frames):
        name = below(filename, roots)
        if name:
            return f"{name}:{line}"
    return f"{os.path.basename(frames[-1][0])}:{frames[-1][1]}" if frames else ""


def below(filename: str, roots: tuple[str, ...]) -> str | None:
    """The file's name relative to a root that holds it; None for installed libraries."""
    if f"{os.sep}site-packages{os.sep}" in filename or f"{os.sep}dist-packages{os.sep}" in filename:
        return None
    for root in roots:
        base = os.path.abspath(root) + os.sep
        if os.path.abspath(filename).startswith(base):
            return os.path.abspath(filename)[len(base) :]
    return None
