"""The journal of one attempt: a file that the trial appends lines to, and that the process supervising it reads.

It is a file rather than a pipe because appending to a file never blocks the trial, and what was written survives the
trial's death. A line is a tag, a tab and JSON. A report is `R <step> <time> <metrics>`, separated by tabs; its metrics
are not parsed before they reach the coordinator.
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

CHUNK = 2**20  # bytes read at once, which limits the size of a batch
ENTERED, LEFT = "E", "L"
_INCOMPLETE = "\0"  # ends a line of which only a part could be written; JSON has no such character


@dataclass(frozen=True)
class TrainerTime:
    """When the trainer was called (ENTERED) or came back (LEFT). These become fields of `Ended`."""

    moment: str
    at: float


Entry = Union[Event, TrainerTime, Failure]


class JournalWriter:
    """Writes to a file that is open for appending. Its methods never raise: a full disk must not end a training."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._incomplete = False

    def _append(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace")
        if self._incomplete:
            data = f"{_INCOMPLETE}\n".encode() + data
        try:
            self._incomplete = os.write(self._fd, data) != len(data)
        except OSError:
            self._incomplete = True

    def report(self, step: int, text: str) -> None:
        """One row; `text` is its metrics as JSON."""
        self._append(f"R\t{step}\t{time.time():.6f}\t{text}\n")

    def put(self, tag: str, value: Any) -> None:
        """Any other line."""
        self._append(f"{tag}\t{json.dumps(value)}\n")

    def notice(self, text: str) -> None:
        """One line for the user."""
        self.put("N", text)

    def trainer_time(self, moment: str) -> None:
        """The trainer is called (ENTERED) or has come back (LEFT) now."""
        self._append(f"{moment}\t{time.time()!r}\n")

    def saved(self, checkpoint: Checkpoint) -> None:
        """A checkpoint is durable."""
        self.put("S", [checkpoint.step, checkpoint.path, time.time()])

    def restored(self, checkpoint: Checkpoint) -> None:
        """The trainer has been given the checkpoint of this step."""
        self.put("T", [checkpoint.step, checkpoint.path, time.time()])

    def failed(self, failure: Failure) -> None:
        """The trainer raised."""
        self.put("F", asdict(failure))


_PARSERS: dict[str, Callable[[Any], Entry]] = {
    "N": Noticed,
    "S": lambda value: Saved(Checkpoint(value[0], value[1]), value[2]),
    "T": lambda value: Restored(value[0], value[1], value[2]),
    ENTERED: lambda value: TrainerTime(ENTERED, value),
    LEFT: lambda value: TrainerTime(LEFT, value),
    "F": lambda value: Failure(**value),
}


class JournalReader:
    """Reads a journal while it grows: complete lines only, each once."""

    def __init__(self, fd: int) -> None:
        self._fd, self._offset = fd, 0

    def read(self) -> list[Entry] | None:
        """The entries of the next chunk; None if there is nothing new."""
        data = os.pread(self._fd, CHUNK, self._offset)
        size = data.rfind(b"\n") + 1
        if not size and len(data) == CHUNK:  # a line longer than any that we write: skip it
            size = CHUNK
        if not size:
            return None
        self._offset += size
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
        except (KeyError, ValueError, TypeError, IndexError):
            continue
        if rows:
            yield Reported(tuple(rows))
            rows = []
        yield entry
    if rows:
        yield Reported(tuple(rows))
