"""The journal of one attempt: a file that the trial appends lines to and the runner tails.

A file rather than a pipe: appending never blocks the trial, and what was written survives its death. A line is
a kind, a tab and JSON; a report is `R <step> <time> <metrics>`, and nobody parses its metrics on the way to the
manifest.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Union

from orchestrator.model.events import Event, Failure, Noticed, Reported, Restored, Saved
from orchestrator.model.order import Checkpoint

CHUNK = 2**20  # bytes read at once; bounds the size of a batch


@dataclass(frozen=True)
class Called:
    """`train` was entered (kind "E") or left (kind "L"); these become fields of `Ended`."""

    kind: str
    at: float


Entry = Union[Event, Called, Failure]


class JournalWriter:
    """The trial's side, of a file opened for appending. Nothing here raises: a full disk must not end a training."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._torn = False

    def _append(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace")
        if self._torn:  # end the line that a full disk cut, so that only it is lost
            data = b"\n" + data
        try:
            self._torn = os.write(self._fd, data) != len(data)
        except OSError:
            self._torn = True

    def report(self, step: int, text: str) -> None:
        """One row; `text` is its metrics as JSON."""
        self._append(f"R\t{step}\t{time.time():.6f}\t{text}\n")

    def put(self, kind: str, value: Any) -> None:
        """Any other line."""
        self._append(f"{kind}\t{json.dumps(value)}\n")

    def notice(self, text: str) -> None:
        """One line for the user."""
        self.put("N", text)

    def called(self, kind: str) -> None:
        """Now is when `train` was entered ("E") or left ("L")."""
        self._append(f"{kind}\t{time.time()!r}\n")

    def saved(self, checkpoint: Checkpoint) -> None:
        """A checkpoint is durable."""
        self.put("S", [checkpoint.step, checkpoint.path, time.time()])

    def restored(self, checkpoint: Checkpoint) -> None:
        """A checkpoint was given to the trainer."""
        self.put("T", [checkpoint.step, checkpoint.path, time.time()])

    def failed(self, failure: Failure) -> None:
        """The trainer raised."""
        self.put("F", asdict(failure))


_READERS: dict[str, Callable[[Any], Entry]] = {
    "N": Noticed,
    "S": lambda value: Saved(Checkpoint(value[0], value[1]), value[2]),
    "T": lambda value: Restored(value[0], value[1], value[2]),
    "E": lambda value: Called("E", value),
    "L": lambda value: Called("L", value),
    "F": lambda value: Failure(**value),
}


class JournalReader:
    """The runner's side: whole lines only, each once."""

    def __init__(self, fd: int) -> None:
        self._fd, self._offset = fd, 0

    def read(self) -> list[Entry] | None:
        """The entries of the next chunk; None when there is nothing new."""
        data = os.pread(self._fd, CHUNK, self._offset)
        whole = data.rfind(b"\n") + 1
        if not whole and len(data) == CHUNK:  # no line of ours is that long
            whole = CHUNK
        if not whole:
            return None
        self._offset += whole
        return list(_entries(data[:whole].decode("utf-8", "replace")))


def _entries(text: str) -> Iterator[Entry]:
    """Entries of whole lines, consecutive reports as one. A line torn by a full disk is left out."""
    rows: list[tuple[int, float, str]] = []
    for line in text.split("\n"):
        kind, _, rest = line.partition("\t")
        try:
            if kind == "R":
                step, at, metrics = rest.split("\t", 2)
                rows.append((int(step), float(at), metrics))
                continue
            entry = _READERS[kind](json.loads(rest))
        except (KeyError, ValueError, TypeError, IndexError):
            continue
        if rows:
            yield Reported(tuple(rows))
            rows = []
        yield entry
    if rows:
        yield Reported(tuple(rows))
