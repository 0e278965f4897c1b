"""What makes two trials the same: a hash over canonical JSON of (trainer, resolved config).

The JSON is UTF-8, its keys are sorted, and it is typed: `1`, `1.0` and `true` differ, as they do for
a trainer. What plain JSON cannot hold is tagged with a key that starts with `$`; a mapping of the
config with such a key is tagged itself, so that a tag never collides with data.

Omitted keys (ignored ones and references) count as absent, and so does a mapping they leave empty.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import re
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

Omit = Callable[[str], bool]


class Hole:
    """A place in a config that each trial fills; it stands in canonical JSON as a marked number."""

    def __init__(self, index: int) -> None:
        self.index = index


class _Omitted:
    """A list's element that does not count; removing it would move its neighbours."""


_OMITTED = _Omitted()
_EMPTY = object()
MARK = "\x00"  # JSON escapes control characters, so this never occurs in it


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _real(value: float) -> str:
    if math.isfinite(value):
        return repr(value + 0.0)  # -0.0 becomes 0.0
    return f'{{"$float":"{value}"}}'


def _mapping(value: Mapping[Any, Any]) -> str:
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return "{" + ",".join(f"{_text(k)}:{canonical(value[k])}" for k in sorted(value)) + "}"
    pairs = sorted((canonical(k), canonical(v)) for k, v in value.items())
    return '{"$map":[' + ",".join(f"[{k},{v}]" for k, v in pairs) + "]}"


def canonical(value: Any) -> str:
    """Canonical typed JSON of plain data."""
    kind = type(value)
    if kind is float:
        return _real(value)
    if kind is int:
        return repr(value)
    if kind is str:
        return _text(value)
    if value is None or kind is bool:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, Hole):
        return f"{MARK}{value.index}{MARK}"
    if isinstance(value, _Omitted):
        return '{"$omitted":true}'
    raise TypeError(f"not plain data: {kind.__name__}")


def omitting(patterns: Iterable[str], keys: Collection[str] = ()) -> Omit:
    """A test for dotted keys: those that match a glob pattern, and those named outright."""
    globs = [fnmatch.translate(pattern) for pattern in patterns]
    match = re.compile("|".join(globs)).match if globs else None
    named = frozenset(keys)
    return lambda key: key in named or bool(match and match(key))


def omitted(config: Mapping[str, Any], ignore: Sequence[str]) -> dict[str, Any]:
    """The values of a config that are no part of a trial's id, by dotted key."""
    if not ignore:
        return {}
    omit, found = omitting(ignore), {}

    def walk(value: Any, path: str) -> None:
        for key, child in value.items():
            inner = f"{path}.{key}" if path else str(key)
            if omit(inner):
                found[inner] = child
            elif isinstance(child, Mapping):
                walk(child, inner)

    walk(config, "")
    return found


def _prune(value: Any, omit: Omit, path: str) -> Any:
    if isinstance(value, Mapping):
        kept = {}
        for key, child in value.items():
            inner = f"{path}.{key}" if path else str(key)
            left = _EMPTY if omit(inner) else _prune(child, omit, inner)
            if left is not _EMPTY:
                kept[key] = left
        return kept if kept or not value else _EMPTY
    if isinstance(value, (list, tuple)):
        return [
            _OMITTED if omit(f"{path}.{i}") else _kept_item(_prune(child, omit, f"{path}.{i}"))
            for i, child in enumerate(value)
        ]
    return value


def _kept_item(value: Any) -> Any:
    return _OMITTED if value is _EMPTY else value


def identity_text(trainer: str, config: Mapping[str, Any], omit: Omit) -> str:
    """The text whose hash is a trial's id; it holds marks where the config holds holes."""
    kept = _prune(config, omit, "")
    return f"[{_text(trainer)},{canonical({} if kept is _EMPTY else kept)}]"


def digest(text: str) -> str:
    """The id that belongs to an identity text: 12 hex digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def trial_id(trainer: str, config: Mapping[str, Any], *, ignore: Iterable[str] = (), omit: Collection[str] = ()) -> str:
    """The id of a trial; keys that match `ignore` (globs) or stand in `omit` (dotted keys) do not count.

    With the seed's key in `omit` it is the `config_id`, which repeats share.
    """
    return digest(identity_text(trainer, config, omitting(ignore, omit)))


class IdSet:
    """A set of trial ids in 12 to 24 bytes each: open addressing over an array of 64-bit numbers.

    A set of Python ints takes up to 140. Ids are hashes already, so their low bits serve as the slot.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 64))
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def add(self, trial_id: str) -> bool:
        """Add an id; whether it was new."""
        number = int(trial_id, 16) + 1  # 0 is an empty slot
        slot = self._find(self._slots, number)
        if self._slots[slot]:
            return False
        self._slots[slot] = number
        self._used += 1
        if 3 * self._used > 2 * len(self._slots):
            self._grow()
        return True

    @staticmethod
    def _find(slots: array[int], number: int) -> int:
        mask = len(slots) - 1
        slot = number & mask
        while slots[slot] and slots[slot] != number:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        slots = array("Q", bytes(16 * len(self._slots)))
        for number in self._slots:
            if number:
                slots[self._find(slots, number)] = number
        self._slots = slots
