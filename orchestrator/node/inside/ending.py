"""End a trial as an interpreter ends: hooks, threads, exit handlers, and what is still open.

An interpreter destroys all objects in the end; so files that were left open get what is buffered for them. With torch
that takes 0.2 s, so a forked trial does it only for objects that need it, and only for those made since the fork:
others are shared by all trials.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FunctionType, GeneratorType, ModuleType
from typing import Any

from orchestrator.model.events import Failure
from orchestrator.node.inside.failure import is_internal
from orchestrator.node.shared import processes

PATIENCE = 60.0  # seconds that finishing what was left open may take: a file may lie on a slow server
_REACH = 1000  # objects that are looked at to learn what one of them refers to

_TEXT: tuple[type, ...] = (io.TextIOWrapper,)
_BINARY: tuple[type, ...] = (io.BufferedWriter, io.BufferedRandom, io.BufferedRWPair)


def show(error: BaseException, failure: Failure) -> None:
    """Show what the trainer raised: through `sys.excepthook` if a library listens there, such as a tracker's."""
    flush_output()
    if isinstance(error, SystemExit):
        sys.stderr.write(failure.message + "\n")
    elif sys.excepthook is sys.__excepthook__:
        sys.stderr.write(failure.traceback)
    else:
        _call_hook(error, failure)


def _call_hook(error: BaseException, failure: Failure) -> None:
    trace = error.__traceback__
    while trace is not None and is_internal(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    error.__traceback__ = trace
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    try:
        sys.excepthook(type(error), error, trace)
    except BaseException as broken:  # SystemExit too, in case the trial is asked to end now: it is about to
        sys.stderr.write("Error in sys.excepthook:\n")
        _print(broken)
        sys.stderr.write("\nOriginal exception was:\n" + failure.traceback)


def _print(error: BaseException) -> None:
    """Print what a function of the user has raised, without the frame of ours that called it."""
    trace = error.__traceback__ and error.__traceback__.tb_next
    traceback.print_exception(type(error), error.with_traceback(trace), trace, chain=False)


def run_exit_handlers() -> None:
    """Wait for threads, then run the exit handlers."""
    if threading.active_count() > 1:
        threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()


def flush_output() -> None:
    """Flush stdout and stderr, those of C libraries too. It is not an error if nobody reads them any more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed, or None
            continue
    processes.flush_c_streams()


def exempt_inherited_objects() -> None:
    """In a new fork: leave alone, at the end and whenever garbage is collected, what exists now."""
    gc.freeze()


def finish_open_objects(code: int, notice: Callable[[str], None]) -> None:
    """Close files and call `__del__` of objects made since `exempt_inherited_objects`. If that hangs, exit with `code`.

    `notice` is told what could not be finished.
    """
    unfinished = open_objects()
    if not unfinished:
        return

    def give_up() -> None:
        notice(
            f"files that the trainer left open could not be finished within {PATIENCE:.0f} s; their ends are missing"
        )
        os._exit(code)

    timer = threading.Timer(PATIENCE, give_up)
    timer.daemon = True
    timer.start()
    try:
        _finish(unfinished, notice)
    finally:
        timer.cancel()


def open_objects() -> list[Any]:
    """The objects, made since `exempt_inherited_objects`, that have something to do before they are destroyed."""
    objects = gc.get_objects()
    kinds = {kind for kind in set(map(type, objects)) if kind in _TEXT or kind in _BINARY or _last_call(kind)}
    return [item for item in objects if type(item) in kinds] if kinds else []


def _last_call(kind: type) -> Callable[[Any], Any] | None:
    """What an interpreter calls before it destroys an object: `__del__`, or what closes it."""
    if kind in (GeneratorType, getattr(sys.modules.get("sqlite3"), "Connection", None)):
        return kind.close  # type: ignore[attr-defined,no-any-return]
    h5py = sys.modules.get("h5py")
    if h5py is not None and h5py.HLObject in kind.__mro__:
        return _close_hdf5
    for base in kind.__mro__:
        method = base.__dict__.get("__del__")
        if method is not None:
            if base is io.IOBase.__base__:  # its `__del__` closes the file, as the class says how
                return None if kind.__module__ == "_io" else kind.close  # type: ignore[attr-defined]
            if base.__module__ == "multiprocessing.connection":
                return None  # it keeps nothing back, and a thread of a queue may close it at the same moment
            return method if isinstance(method, FunctionType) else None
    return None


def _close_hdf5(item: Any) -> None:
    """HDF5 closes files when the process exits, in C; one that is not closed cannot be read."""
    if item:
        item.file.close()


def _finish(unfinished: list[Any], notice: Callable[[str], None]) -> None:
    """Text first, since it is written to binary files; a file that packs another one before that."""
    texts = [item for item in unfinished if type(item) in _TEXT]
    binaries = [item for item in unfinished if type(item) in _BINARY]
    others = [item for item in unfinished if type(item) not in _TEXT and type(item) not in _BINARY]
    failed = [_try(type(stream).flush, stream) for stream in texts]
    for item in _outermost_first(others):
        call = _last_call(type(item))
        if call is not None:
            failed.append(_try(call, item))
    failed += [_try(type(stream).flush, stream) for stream in (*texts, *binaries)]
    for text in dict.fromkeys(filter(None, failed)):
        notice(text)


def _try(call: Callable[[Any], Any], item: Any) -> str:
    """Make an object's last call; says what is missing if it could not be written."""
    try:
        call(item)
    except BrokenPipeError:  # of a child that has ended
        return ""
    except OSError as error:
        name = getattr(item, "name", type(item).__qualname__)
        return f"the end of {name}, which the trainer left open, is missing: {error.strerror or error}"
    except BaseException as error:  # an interpreter goes on too, and tells of `__del__` only
        if getattr(call, "__name__", "") == "__del__":
            sys.stderr.write(f"Exception ignored in: {call!r}\n")
            _print(error)
    return ""


def _outermost_first(items: list[Any]) -> Iterator[Any]:
    """Those that no other one refers to come first: what packs a file writes to it when it is closed."""
    left = {id(item): item for item in items}
    inner = {number: _reached(item) & left.keys() for number, item in left.items()}
    while left:
        held = set().union(*(inner[number] for number in left))
        free = [number for number in left if number not in held] or list(left)  # a circle has no first one
        for number in free:
            yield left.pop(number)


def _reached(item: Any) -> set[int]:
    """What an object refers to, also by way of others."""
    found, reached = [item], {id(item)}
    for each in found:  # it grows while it is walked
        if len(found) > _REACH:
            break
        for other in gc.get_referents(each):
            if id(other) not in reached and not issubclass(type(other), (type, ModuleType, FunctionType)):
                reached.add(id(other))
                found.append(other)
    return reached - {id(item)}
