"""The identity of a trial: a hash of the canonical JSON of (trainer, resolved config).

The JSON is UTF-8, its keys are sorted, and it is typed: `1`, `1.0` and `true` differ, as they do for a trainer. Values
that JSON cannot express are tagged with a key that starts with `$`. A mapping of the config that has such a key is
tagged as well, so that a tag is never confused with data.

Omitted keys (ignored keys and references) count as absent. So does a mapping that becomes empty by omitting keys. Of a
value that refers to an ignored key, the text counts in which it does.
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


class Placeholder:
    """A value in a config that differs from trial to trial; in canonical JSON its index stands between two marks."""

    def __init__(self, index: int) -> None:
        self.index = index


class Source:
    """Stands for a value that comes from an ignored key: what counts is how it is written, `${paths.data}/train`."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Omitted:
    """Stands for an omitted element of a list. Removing the element would shift the others."""


_OMITTED = _Omitted()
_EMPTY = object()
MARK = "\x00"  # never occurs in JSON, which escapes control characters


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
    type_ = type(value)
    if type_ is float:
        return _real(value)
    if type_ is int:
        return repr(value)
    if type_ is str:
        return _text(value)
    if value is None or type_ is bool:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, Placeholder):
        return f"{MARK}{value.index}{MARK}"
    if isinstance(value, Source):
        return f'{{"$source":{_text(value.text)}}}'
    if isinstance(value, _Omitted):
        return '{"$omitted":true}'
    raise TypeError(f"not plain data: {type_.__name__}")


def key_matcher(patterns: Iterable[str], keys: Collection[str] = ()) -> Omit:
    """A function that tests whether a dotted key matches one of the glob patterns or is one of `keys`."""
    globs = [fnmatch.translate(pattern) for pattern in patterns]
    match = re.compile("|".join(globs)).match if globs else None
    named = frozenset(keys)
    return lambda key: key in named or bool(match and match(key))


def omitted(config: Mapping[str, Any], ignore: Sequence[str]) -> dict[str, Any]:
    """The values of a config that are no part of a trial's id, by dotted key."""
    if not ignore:
        return {}
    omit, found = key_matcher(ignore), {}

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
    """The value without omitted keys; `_EMPTY` for a mapping of which nothing is left."""
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


def with_sources(config: Mapping[Any, Any], sources: Mapping[tuple[Any, ...], str]) -> Mapping[Any, Any]:
    """The config with the texts of values that come from ignored keys, by path. It shares what does not change."""
    changed = dict(config)
    for path, text in sources.items():
        node: Any = changed
        for part in path[:-1]:
            node[part] = node[part].copy()
            node = node[part]
        node[path[-1]] = Source(text)
    return changed


def identity_text(trainer: str, config: Mapping[str, Any], omit: Omit) -> str:
    """The text whose hash is the trial's id. Placeholders of the config become marks in the text."""
    kept = _prune(config, omit, "")
    return f"[{_text(trainer)},{canonical({} if kept is _EMPTY else kept)}]"


def digest(text: str) -> str:
    """The id for an identity text: 12 hex digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def trial_id(trainer: str, config: Mapping[str, Any], *, ignore: Iterable[str] = (), omit: Collection[str] = ()) -> str:
    """The id of a trial. Keys that match `ignore` (globs) or are in `omit` (dotted keys) do not count.

    If `omit` contains the key of the seed, this is the `config_id`, which is the same for all repeats.
    """
    return digest(identity_text(trainer, config, key_matcher(ignore, omit)))


class IdSet:
    """A set of trial ids that needs 12 to 24 bytes per id: a hash table with open addressing in one array.

    A set of Python ints needs up to 140 bytes per id. Ids are hashes, so their low bits are the index in the table.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 64))
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def add(self, trial_id: str) -> bool:
        """Add an id. Returns whether it was new."""
        number = int(trial_id, 16) + 1  # 0 marks an empty slot
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
