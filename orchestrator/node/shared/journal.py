"""The journal of one attempt: a file that the trial appends lines to, and that the process supervising it reads.

It is a file rather than a pipe because appending to a file never blocks the trial, and what was written survives the
trial's death. It lies in memory, where no full disk disturbs it, and what has been read is freed. A line is a tag, a
tab and JSON. A report is `R <step> <time> <metrics>`, separated by tabs; its metrics
are not parsed before they reach the coordinator.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Union

from orchestrator.model.events import Event, Failure, Noticed, Reported, Restored, Saved
from orchestrator.model.order import Checkpoint
from orchestrator.node.shared import memory_file
from orchestrator.text import shortened

CHUNK = 2**20  # bytes read at once, which limits the size of a batch
BACKLOG = 2**29  # bytes; they lie in memory
_CHECK_AFTER = 2**20  # bytes of reports after which the backlog is looked at
_MAX_NOTICE = 2_000  # characters
_INCOMPLETE = "\0"  # ends a line of which only a part could be written; JSON has no such character


@dataclass(frozen=True)
class Entered:
    """The trainer was called."""

    at: float  # seconds since the epoch


@dataclass(frozen=True)
class Left:
    """The trainer returned or raised."""

    at: float  # seconds since the epoch
    clock: float  # of `time.monotonic`, which all processes of a machine share
    code: int  # the exit code that this means


@dataclass(frozen=True)
class Dropped:
    """A row of `run.report` was left out."""

    reason: str


@dataclass(frozen=True)
class Unwritten:
    """So many lines of this process, so far, could not be written."""

    pid: int
    lines: int
    reason: str


@dataclass(frozen=True)
class Used:
    """These files of the copy of the code were used; None: that cannot be known."""

    names: tuple[str, ...] | None


@dataclass(frozen=True)
class UsedBefore(Used):
    """The same, before the trial began."""


Entry = Union[Event, Entered, Left, Failure, Dropped, Unwritten, Used]


def _identity(fd: int) -> tuple[int, int]:
    file = os.fstat(fd)
    return file.st_dev, file.st_ino


def _open(path: str, identity: tuple[int, int]) -> int:
    """Raises OSError if the trial has ended."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    if _identity(fd) != identity:
        os.close(fd)
        raise FileNotFoundError(f"the trial that `run` belongs to has ended ({path})")
    return memory_file.move_up(fd)


def _open_writer(path: str, identity: tuple[int, int], backlog: int) -> JournalWriter:
    return JournalWriter(_open(path, identity), backlog, path)


class JournalWriter:
    """Writes to a file that is open for appending.

    Its methods never raise, since that would end a training: lines that cannot be written are counted, and the next
    one that can be says how many.
    """

    def __init__(self, fd: int, backlog: int = BACKLOG, path: str = "") -> None:
        """`backlog`: how many bytes may wait to be read before further reports are lost.

        `path`: where another process has the same file open, below /proc; this one may lose its descriptor.
        """
        self._fd, self._backlog = fd, backlog
        self._path, self._identity = path or f"/proc/{os.getpid()}/fd/{fd}", _identity(fd)
        self._incomplete = False
        self._unwritten = self._told = 0  # lines, and how many of them the journal tells
        self._reason = ""
        self._unchecked = 0  # bytes of reports

    def __reduce__(self) -> Any:
        """In a process that the trainer spawns, where our descriptor's number means something else: the same file."""
        return _open_writer, (self._path, self._identity, self._backlog)

    def _append(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace")
        unwritten = self._unwritten
        if unwritten != self._told:
            data = f"X\t{json.dumps([os.getpid(), unwritten, self._reason])}\n".encode() + data
        if self._incomplete:
            data = f"{_INCOMPLETE}\n".encode() + data
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            try:
                written = self._write_again(data, error)
            except OSError as last:
                self._lose(str(last.strerror))
                return
        if written == len(data):
            self._incomplete, self._told = False, unwritten
        else:
            self._incomplete = True
            self._lose(os.strerror(errno.ENOSPC))

    def _write_again(self, data: bytes, error: OSError) -> int:
        """Where the trainer has closed the descriptor, as `os.closerange` does."""
        if error.errno != errno.EBADF:
            raise error
        self._fd = _open(self._path, self._identity)
        return os.write(self._fd, data)

    def _lose(self, reason: str) -> None:
        self._unwritten += 1
        self._reason = reason

    def report(self, step: int, text: str) -> None:
        """One row; `text` is its metrics as JSON."""
        self._unchecked += len(text)
        if self._unchecked >= _CHECK_AFTER:
            if memory_file.size_in_memory(self._fd) >= self._backlog:
                self._lose(f"they were reported faster than they can be sent ({self._backlog >> 20} MiB wait)")
                return
            self._unchecked = 0
        self._append(f"R\t{step}\t{time.time():.6f}\t{text}\n")

    def dropped(self, reason: str) -> None:
        """A row is left out, for one of a few reasons."""
        self.put("D", reason)

    def put(self, tag: str, value: Any) -> None:
        """Any other line."""
        self._append(f"{tag}\t{json.dumps(value)}\n")

    def notice(self, text: str) -> None:
        """One line for the user."""
        self.put("N", shortened(text, _MAX_NOTICE))

    def entered(self) -> None:
        """The trainer is called now."""
        self._append(f"E\t{time.time()!r}\n")  # as `left`, without `json`, which would make a trial copy 100 pages

    def left(self, left: Left) -> None:
        """The trainer has returned or raised, and all that it reports by that is written."""
        self._append(f"L\t[{left.at!r},{left.clock!r},{left.code}]\n")

    def used(self, name: str | None) -> None:
        """A file of the copy of the code was used for the first time; None: perhaps any of them."""
        self.put("U", name if name is None else [name])

    def used_before(self, text: str) -> None:
        """The same for all that was used before the trial began, as JSON."""
        self._append(f"B\t{text}\n")

    def saved(self, checkpoint: Checkpoint) -> None:
        """A checkpoint is durable."""
        self.put("S", [checkpoint.step, checkpoint.path, time.time()])

    def restored(self, checkpoint: Checkpoint) -> None:
        """The trainer has been given the checkpoint of this step."""
        self.put("T", [checkpoint.step, checkpoint.path, time.time()])

    def failed(self, failure: Failure) -> None:
        """The trainer raised."""
        self.put("F", asdict(failure))


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("not a text")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("not a whole number")
    return value


def _time(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError("not a time")
    return float(value)


def _names(value: Any) -> tuple[str, ...] | None:
    return None if value is None else tuple(map(_text, value))


_PARSERS: dict[str, Callable[[Any], Entry]] = {
    "N": lambda value: Noticed(_text(value)),
    "S": lambda value: Saved(Checkpoint(_whole(value[0]), _text(value[1])), _time(value[2])),
    "T": lambda value: Restored(_whole(value[0]), _text(value[1]), _time(value[2])),
    "E": lambda value: Entered(_time(value)),
    "L": lambda value: Left(_time(value[0]), _time(value[1]), _whole(value[2])),
    "U": lambda value: Used(_names(value)),
    "B": lambda value: UsedBefore(_names(value)),
    "D": lambda value: Dropped(_text(value)),
    "X": lambda value: Unwritten(_whole(value[0]), _whole(value[1]), _text(value[2])),
    "F": lambda value: Failure(*(_text(value[name]) for name in ("type", "message", "where", "traceback"))),
}


class JournalReader:
    """Reads a journal while it grows: complete lines only, each once."""

    def __init__(self, fd: int) -> None:
        self._fd, self._offset = fd, 0
        self._freed = 0  # up to here

    def read(self) -> list[Entry] | None:
        """The entries of the next chunk; None if there is nothing new."""
        data = os.pread(self._fd, CHUNK, self._offset)
        size = data.rfind(b"\n") + 1
        if not size and len(data) == CHUNK:  # a line longer than any that we write: skip it
            size = CHUNK
        if not size:
            return None
        self._offset += size
        if self._offset - self._freed >= CHUNK:
            self._freed = self._offset
            memory_file.free_beginning(self._fd, self._offset)
        return list(_entries(data[:size].decode("utf-8", "replace")))


def _entries(text: str) -> Iterator[Entry]:
    """The entries of these lines, consecutive reports as one. Lines that are incomplete or invalid are left out."""
    rows: list[tuple[int, float, str]] = []
    for line in text.split("\n"):
        tag, _, rest = line.partition("\t")
        if rest.endswith(_INCOMPLETE):
            continue
        try:
            if tag == "R":
                step, at, metrics = rest.split("\t", 2)
                rows.append((int(step), float(at), metrics))
                continue
            entry = _PARSERS[tag](json.loads(rest))
        except (KeyError, ValueError, TypeError, IndexError, OverflowError, RecursionError):
            continue
        if rows:
            yield Reported(tuple(rows))
            rows = []
        yield entry
    if rows:
        yield Reported(tuple(rows))
