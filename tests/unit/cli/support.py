"""What the tests of commands share: the output of a command, and a sweep that is held by a coordinator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from orchestrator.folder.lock import Lock
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Outcome
from orchestrator.model.sweep import State

MULTILINE_FAILURE = Outcome(State.FAILED, "exception", "ValueError: bad", "Traceback …\nValueError: bad", "train.py:7")


@dataclass
class Output:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def json(self) -> list[Any]:
        """The values of JSON lines. NaN and infinities are not JSON."""
        return [json.loads(line, parse_constant=_refuse) for line in self.lines]


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


Command = Callable[..., Output]


@contextmanager
def held(sweep: Manifest) -> Iterator[None]:
    """The sweep has a live coordinator: this process holds its lock."""
    lock = Lock.take(sweep.folder)
    try:
        yield
    finally:
        lock.release()
