"""The door for what trials and nodes tell: after it, everything can be recorded. Pure.

Text is made such that SQLite and a terminal take it, numbers fit into 64 bits. What cannot be repaired is left out, and
counted where it is a reported row.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any, TypeVar

from orchestrator.model import exact_json
from orchestrator.model.events import Event, Failure, Filed, Logged, Reported, Restored, Saved
from orchestrator.model.order import Checkpoint
from orchestrator.text import safe

MAX_INT = 2**63 - 1  # SQLite's integers
_BETWEEN = ",\n"
_NUMBERS = {int, float}
_NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})  # as a trial writes them

Row = tuple[int, float, str]  # step, seconds since the epoch, metrics as JSON text
T = TypeVar("T")


def accept(event: Event) -> Event | None:
    """The event as it can be recorded; None if it cannot. Rows of a `Reported` are for `accept_rows`."""
    if isinstance(event, (Logged, Filed, Reported)):
        return event
    if isinstance(event, Saved) and not _is_step(event.checkpoint.step):
        return None
    if isinstance(event, Restored) and not _is_step(event.step):
        return None
    return _with_safe_text(event)


def accept_rows(rows: Sequence[Row]) -> tuple[Sequence[Row], list[dict[str, Any]]]:
    """The rows that can be recorded, and the metrics of each."""
    plain = _metrics_of_plain(rows)
    if plain is not None:
        return rows, plain
    found = [accepted for row in rows if (accepted := _row(*row)) is not None]
    return [row for row, _ in found], [metrics for _, metrics in found]


def _metrics_of_plain(rows: Sequence[Row]) -> list[dict[str, Any]] | None:
    """The metrics of rows that are all as `run.report` writes them, which nearly all are; None if one is not.

    To look at many at once takes a third of the time. No string in JSON holds a line break, and no value here is an
    object or a list: so where each text begins and ends with a brace, and there are as many objects, each text is one.
    """
    if not rows:
        return []
    steps, times, texts = zip(*rows, strict=True)
    joined = f"[{_BETWEEN.join(texts)}]"
    if not joined.isascii() or "\\ud" in joined or "NaN" in joined or "Infinity" in joined:
        return None
    between = len(rows) - 1
    if joined.count("\n") != between or joined.count(f"}}{_BETWEEN}{{") != between or joined[-2:] != "}]":
        return None
    if set(map(type, steps)) != {int} or min(steps) < 0 or max(steps) > MAX_INT or not math.isfinite(sum(times)):
        return None
    try:
        metrics: list[Any] = json.loads(joined)
    except (ValueError, RecursionError):
        return None
    if len(metrics) != len(rows) or set(map(type, metrics)) != {dict}:
        return None
    values = list(chain.from_iterable(map(dict.values, metrics)))
    kinds = set(map(type, values))
    if not kinds <= _NUMBERS or (int in kinds and (max(values) > MAX_INT or min(values) < -MAX_INT)):
        return None
    return metrics


def _row(step: int, at: float, text: str) -> tuple[Row, dict[str, Any]] | None:
    try:
        metrics = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if type(metrics) is not dict or not _is_step(step) or not math.isfinite(at):
        return None
    if not all(map(_is_metric, metrics.values())):
        return None
    if "\\ud" in text or not text.isascii():  # a half of a surrogate pair, perhaps, in a name
        metrics = {safe(name): value for name, value in metrics.items()}
        text = exact_json.dumps(metrics)
    elif "NaN" in text or "Infinity" in text:
        text = exact_json.dumps(metrics)
    return (step, at, text), metrics


def _is_step(step: object) -> bool:
    return type(step) is int and 0 <= step <= MAX_INT


def _is_metric(value: object) -> bool:
    if type(value) is int:
        return -MAX_INT - 1 <= value <= MAX_INT
    return type(value) is float or (type(value) is str and value in _NOT_FINITE)


def _with_safe_text(value: T) -> T:
    """A copy of an event in which all text is safe; the event itself if it is already."""
    changes: dict[str, Any] = {}
    for name in _field_names(type(value)):  # type: ignore[arg-type]
        old = getattr(value, name)
        new = _safe_value(old)
        if new is not old:
            changes[name] = new
    return dataclasses.replace(value, **changes) if changes else value  # type: ignore[type-var]


@cache
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(kind))


def _safe_value(value: Any) -> Any:
    kind = type(value)
    if kind is str:
        return safe(value)
    if kind is tuple:
        made = tuple(map(_safe_value, value))
        return value if made == value else made
    return _with_safe_text(value) if kind in (Checkpoint, Failure) else value
