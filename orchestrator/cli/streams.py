"""Standard output and error of a command: closed, full, blocked or odd, they stop no sweep and falsify nothing."""

from __future__ import annotations

import codecs
import errno
import io
import os
import queue
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from orchestrator.errors import OrchestratorError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SPELLED = {  # what our messages are written with, for an output that has ASCII or Latin-1 only
    "…": "...",
    "→": "->",
    "↻": "~",
    "✓": "+",
    "✗": "x",
    "⊘": "-",
    "·": "-",
    "×": "x",
    "–": "-",
    "—": "-",
    "±": "+-",
    "≥": ">=",
    "≤": "<=",
    "’": "'",
    "“": '"',
    "”": '"',
}


class ClosedError(BrokenPipeError):
    """Nobody reads the output any more, as after `| head`."""


class _Output(io.RawIOBase):
    """Writes to a standard stream. Once that is closed or fails, what follows is dropped."""

    passing: tuple[int, ...] = ()  # errors after which it is tried again

    def __init__(self, fd: int) -> None:
        self._fd, self._dropped = fd, False
        self.problem: OSError | None = None

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        """Raises ClosedError, or OrchestratorError if not all can be written."""
        text = bytes(data)  # type: ignore[call-overload]
        self._write(text)
        if isinstance(self.problem, BrokenPipeError):
            raise ClosedError
        if self.problem is not None:
            raise OrchestratorError(
                f"the output cannot be written: {self.problem.strerror}", fix="what was written of it is not complete"
            )
        return len(text)

    def _write(self, data: bytes) -> None:
        while data and not self._dropped:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # another process has made the terminal non-blocking
                select.select([], [self._fd], [])
            except OSError as error:
                self.problem = error
                if error.errno in self.passing:
                    return
                self._drop()

    def _drop(self) -> None:
        """From now on also what others write there: a child, or Python at its exit."""
        self._dropped = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._fd)
        os.close(nowhere)

    def drain(self) -> None:
        """Wait until everything is written."""


class _Quiet(_Output):
    """One whose failure nobody can be told of: stderr."""

    passing = _FULL

    def write(self, data: object) -> int:
        text = bytes(data)  # type: ignore[call-overload]
        self._write(text)
        return len(text)


class _Lasting(_Output):
    """The output of a command that goes on without it. A thread writes: a reader that does not read stops nothing."""

    passing = _FULL

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._waiting: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._work, name="output", daemon=True).start()

    def write(self, data: object) -> int:
        text = bytes(data)  # type: ignore[call-overload]
        self._waiting.put(text)
        return len(text)

    def _work(self) -> None:
        while True:
            self._write(self._waiting.get())
            self._waiting.task_done()

    def drain(self) -> None:
        self._waiting.join()


@contextmanager
def opened(lasting: bool) -> Iterator[None]:
    """Standard streams that print any text. `lasting`: the command goes on when nobody reads its output any more."""
    before = sys.stdout, sys.stderr
    _open_closed()
    if _is_real(sys.stdout, 1):
        sys.stdout = _text((_Lasting if lasting else _Output)(1), sys.stdout)
    if _is_real(sys.stderr, 2):
        sys.stderr = _text(_Quiet(2), sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spelled")
    try:
        yield
    finally:
        with suppress(OSError, OrchestratorError, KeyboardInterrupt):  # it was told when it was first seen
            drain()
        sys.stderr.flush()
        raw = _raw()
        if lasting and raw is not None and raw.problem and not isinstance(raw.problem, BrokenPipeError):
            sys.stderr.write(f"note: not all of the output could be written: {raw.problem.strerror}\n")
            sys.stderr.flush()
        sys.stdout, sys.stderr = before


def drain() -> None:
    """Wait until all that was printed is written."""
    sys.stdout.flush()
    raw = _raw()
    if raw is not None:
        raw.drain()


def for_programs() -> None:
    """What follows is JSON or CSV: in UTF-8 whatever the terminal's encoding, so that no text is changed."""
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _raw() -> _Output | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Output) else None


def _is_real(stream: object, fd: int) -> bool:
    """Whether this is the process's own stream; a test may have replaced it."""
    if not isinstance(stream, io.TextIOWrapper):
        return False
    try:
        return stream.fileno() == fd
    except (OSError, ValueError):
        return False


def _text(raw: _Output, like: object) -> io.TextIOWrapper:
    assert isinstance(like, io.TextIOWrapper)
    with suppress(OSError):
        like.flush()
    lines = raw.isatty() or isinstance(raw, _Quiet)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=like.encoding, errors=like.errors, line_buffering=lines)


def _open_closed() -> None:
    """Open what is closed of stdin, stdout and stderr, as /dev/null.

    Otherwise the next file that is opened, such as the manifest, would get the number of a closed one.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, "w" if fd else "r", encoding="utf-8", closefd=False))


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    marks = error.object[error.start : error.end]
    spelled = (_SPELLED.get(mark) or mark.encode("ascii", "backslashreplace").decode() for mark in marks)
    return "".join(spelled), error.end


codecs.register_error("spelled", _spell)
