"""Requests to a live coordinator: one file for each request, one for its answer."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.files import replacing
from orchestrator.folder.lock import holder_of
from orchestrator.folder.paths import SweepFolder, unwritable


def send_request(folder: SweepFolder, request: dict[str, Any], timeout: float = 30.0) -> str | None:
    """Write a request for the live coordinator and wait for the answer; None if there is none in time (seconds)."""
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    path, answer = folder.requests / f"{name}.json", folder.requests / f"{name}.answer"
    try:
        folder.requests.mkdir(exist_ok=True)
        with replacing(path) as draft:
            draft.write_text(json.dumps(request), encoding="utf-8")
    except OSError as error:
        raise unwritable(folder, error) from error
    until = time.monotonic() + timeout
    while time.monotonic() < until and holder_of(folder) is not None:
        if answer.exists():
            break
        time.sleep(0.05)
    try:
        return answer.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    finally:
        path.unlink(missing_ok=True)
        answer.unlink(missing_ok=True)


@dataclass(frozen=True)
class Request:
    """A request that was read: its fields have the right types, whatever stood in the file."""

    kind: str
    trials: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""  # why it cannot be done


def _read(data: Mapping[str, Any]) -> Request:
    kind, trials, settings = str(data.get("kind")), data.get("trials", []), data.get("set", {})
    if not isinstance(trials, list) or not all(isinstance(name, str) for name in trials):
        return Request(kind, problem="trials must be a list of trial ids")
    if not isinstance(settings, dict):
        return Request(kind, problem="set must be a mapping of keys to values")
    return Request(kind, tuple(trials), settings)


def pending_requests(folder: SweepFolder) -> Iterator[tuple[Path, Request]]:
    """Requests not yet answered, oldest first. What is no JSON object is deleted: nobody can answer it."""
    for path in sorted(folder.requests.glob("*.json")):
        try:
            request = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            request = None
        if isinstance(request, dict):
            yield path, _read(request)
        else:
            path.unlink(missing_ok=True)


def discard_requests(folder: SweepFolder) -> None:
    """Remove requests to an earlier coordinator: whoever sent them has stopped waiting."""
    for path in folder.requests.glob("*"):
        path.unlink(missing_ok=True)


def answer_request(path: Path, text: str) -> None:
    """Answer a request and remove it. Raises OSError if the answer cannot be written; the request is removed anyway."""
    try:
        with replacing(path.with_suffix(".answer")) as draft:
            draft.write_text(text, encoding="utf-8")
    finally:
        path.unlink(missing_ok=True)
