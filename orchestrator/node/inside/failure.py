"""Describe an exception of the trainer as its author wants to read it: with frames of the user's code only."""

from __future__ import annotations

import bdb
import os
import traceback
from collections.abc import Iterable

from orchestrator.files import PACKAGE
from orchestrator.model.events import Failure
from orchestrator.text import message_of, shortened

_OUR_PACKAGE = PACKAGE + os.sep
_MAX_TRACEBACK = 20_000  # characters; the middle of a longer one is left out
_MAX_FRAMES = 1_000  # of each exception, the last ones: as many as Python shows
_MAX_PART = 4_000  # of a message or a line of source: a long one must not hide the frames around it


def describe(error: BaseException, roots: Iterable[str]) -> Failure:
    """Type, message, the last frame below one of `roots`, and a traceback without internal frames."""
    try:
        trace = traceback.TracebackException.from_exception(error, limit=-_MAX_FRAMES, capture_locals=False)
    except Exception as odd:  # its attributes raise, which are the user's code
        plain = RuntimeError(f"{type(error).__name__}; more of it cannot be shown: {type(odd).__name__} is raised then")
        trace = traceback.TracebackException.from_exception(plain.with_traceback(error.__traceback__))
    _remove_internal_frames(trace)
    text = "".join(shortened(part, _MAX_PART) for part in trace.format())
    where = _user_frame(trace, error, tuple(roots))
    return Failure(_type_name(type(error)), _message(error), where, shortened(text, _MAX_TRACEBACK))


def _type_name(exception: type[BaseException]) -> str:
    name = exception.__qualname__
    return shortened(name if exception.__module__ == "builtins" else f"{exception.__module__}.{name}", _MAX_PART)


def _message(error: BaseException) -> str:
    if isinstance(error, bdb.BdbQuit):
        return "breakpoint() needs a terminal: orchestrate try runs a trial in yours"
    return message_of(error, _MAX_PART)


def is_internal(filename: str) -> bool:
    """Whether frames in this file tell the user nothing: it belongs to this package or to the import system."""
    return filename.startswith((_OUR_PACKAGE, "<frozen importlib")) or filename.endswith(
        f"importlib{os.sep}__init__.py"
    )


def _remove_internal_frames(trace: traceback.TracebackException) -> None:
    found, seen = [trace], {id(trace)}
    for each in found:  # it grows while it is walked; not recursive: a chain may be longer than calls can be nested
        each.stack[:] = [frame for frame in each.stack if not is_internal(frame.filename)]
        for other in (each.__cause__, each.__context__, *(getattr(each, "exceptions", None) or ())):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                found.append(other)


def _user_frame(trace: traceback.TracebackException, error: BaseException, roots: tuple[str, ...]) -> str:
    frames = [(frame.filename, frame.lineno) for frame in trace.stack]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    for filename, line in reversed(frames):
        name = name_below(filename, roots)
        if name:
            return f"{name}:{line}"
    return f"{os.path.basename(frames[-1][0])}:{frames[-1][1]}" if frames else ""


def name_below(filename: str, roots: tuple[str, ...]) -> str | None:
    """The file's path relative to the root that holds it; None outside of all roots and for installed libraries."""
    if filename.startswith("<"):  # code that was made from a text, such as a dataclass's `__init__`
        return None
    if f"{os.sep}site-packages{os.sep}" in filename or f"{os.sep}dist-packages{os.sep}" in filename:
        return None
    for root in roots:
        base = os.path.abspath(root) + os.sep
        if os.path.abspath(filename).startswith(base):
            return os.path.abspath(filename)[len(base) :]
    return None
