"""JSON Lines: a file with a line when a run starts, one for each of its steps, and one when it ends.

Several sweeps may share a file: each write holds an exclusive lock on it. The file itself says how far a run has come,
so that a replay adds only what is missing.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import RefusedError, TrackingError
from orchestrator.model import exact_json
from orchestrator.ports import TrackedRun, TrackedSweep

_BEGINNING = b'{"run":'  # of each line that we write


@dataclass
class _Written:
    """What the file holds of one run."""

    first_missing: int = 0  # step
    end: Mapping[str, Any] | None = None  # its last line, if that is the line of an end


class JsonLinesTracker:
    """Runs in one file, for whoever reads it while the sweep runs."""

    live = True
    dead = False

    def __init__(self, sweep: TrackedSweep) -> None:
        self._path = Path(sweep.project, Path(sweep.options).expanduser())
        self.destination = str(self._path)
        self._own = threading.Lock()  # a lock on the file excludes other processes, not our own threads
        self._runs: dict[str, Mapping[str, Any]] = {}  # those that are open: what each of their lines begins with
        self._forget()

    def start(self, run: TrackedRun) -> int:
        names = {"run": run.run_id, "trial": run.trial_id, "name": run.name}
        with self._file() as file:
            if run.run_id not in self._written:
                self._append(file, {**names, "time": run.started, "sweep": run.sweep, "config": run.config})
            self._runs[run.run_id] = names
            return self._written[run.run_id].first_missing

    def log(self, run_id: str, step: int, metrics: Mapping[str, float], time: float) -> None:
        with self._file() as file:
            self._begun(run_id)
            self._append(file, {**self._runs[run_id], "step": step, "time": time, "metrics": metrics})

    def finish(self, run_id: str, exit_code: int, tags: Sequence[str]) -> None:
        line = {**self._runs.pop(run_id), "exit_code": exit_code, "tags": list(tags)}
        with self._file() as file:
            if self._begun(run_id).end != line:
                self._append(file, line)
            os.fsync(file)

    def address(self) -> str | None:
        return None

    def close(self) -> None:
        """The file is open only while it is written."""

    # ------------------------------------------------------------ the file

    @contextmanager
    def _file(self) -> Iterator[int]:
        """The file, locked, and read to its end. Raises TrackingError."""
        try:
            with self._own:
                file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    self._read(file)
                    yield file
                finally:
                    os.close(file)
        except OSError as error:
            raise TrackingError(
                f"cannot write: {error.strerror or error}",
                where=str(self._path),
                fix="free space on the disk, or make the folder and let this user write there",
            ) from error

    def _begun(self, run_id: str) -> _Written:
        """What the file holds of a run that was started. Raises TrackingError: a run that is started again is whole."""
        if run_id not in self._written:
            raise TrackingError("the file was removed or replaced while runs were written to it", where=str(self._path))
        return self._written[run_id]

    def _forget(self) -> None:
        self._identity: tuple[int, int] | None = None  # of the file that was read
        self._end = 0  # bytes of it that were read, all of them whole lines
        self._written: dict[str, _Written] = {}

    def _read(self, file: int) -> None:
        """Take in what was written since the last time, by whomever."""
        found = os.fstat(file)
        if self._identity != (found.st_dev, found.st_ino) or found.st_size < self._end:
            self._forget()
            self._identity = (found.st_dev, found.st_ino)
        if found.st_size == self._end:
            return
        with open(file, "rb", closefd=False) as lines:
            lines.seek(self._end)
            for line in lines:
                if not line.endswith(b"\n"):
                    self._cut(file, line)
                    return
                self._take(line)
                self._end += len(line)

    def _cut(self, file: int, line: bytes) -> None:
        """Remove a line of which only a part was written, because the disk was full or the writer was killed."""
        if line[: len(_BEGINNING)] != _BEGINNING[: len(line)]:
            raise RefusedError(
                "the file ends in half a line that is not ours",
                where=str(self._path),
                fix="name another file, or complete that line",
            )
        os.ftruncate(file, self._end)

    def _take(self, text: bytes) -> None:
        try:
            line = json.loads(text)
            run = self._written.setdefault(line["run"], _Written())
            if "step" in line:
                run.first_missing = max(run.first_missing, line["step"] + 1)
            run.end = line if "exit_code" in line else None
        except (ValueError, LookupError, TypeError):
            pass  # somebody else's line

    def _append(self, file: int, line: Mapping[str, Any]) -> None:
        text = (
            exact_json.dumps(line).encode("utf-8", "backslashreplace") + b"\n"
        )  # half a surrogate pair becomes \udc80
        left = text
        while left:
            left = left[os.write(file, left) :]
        self._take(text)
        self._end += len(text)
