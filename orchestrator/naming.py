"""Labels and numbers for people: a trial is named by the settings that vary, as briefly as possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NAMED = ("best", "last")  # what a trial may be called, besides its id
_NO_AXES = "(no axes)"
_LEFT_OUT = ""  # the key of the mark for settings that are left out
_SHORTEST = 4  # characters of a word that was shortened


def value(item: Any) -> str:
    """The value of a setting as a person writes it."""
    if isinstance(item, float):
        return f"{item:g}"
    if isinstance(item, bool) or item is None:
        return {True: "true", False: "false", None: "null"}[item]
    if isinstance(item, (list, tuple)):
        return "[" + ",".join(value(part) for part in item) + "]"
    text = str(item)
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """A short name for each dotted key: its last parts, as few as make it unique."""
    known = list(keys)
    short = {}
    for key in known:
        parts = key.lstrip("/+").split(".")
        for size in range(1, len(parts) + 1):
            name = ".".join(parts[-size:])
            if sum(other == name or other.endswith("." + name) for other in known) <= 1:
                break
        short[key] = name
    clashes = Counter(short.values())
    return {key: name if clashes[name] == 1 else key for key, name in short.items()}


def label(overrides: Mapping[str, Any]) -> str:
    """The settings that vary, in the order of the axes: "lstm adam lr=0.01". A word that occurs once has no key."""
    return " ".join(_words(overrides).values()) or _NO_AXES


def _words(overrides: Mapping[str, Any]) -> dict[str, str]:
    """Each setting as a word of the label."""
    short = short_keys(overrides)
    words = Counter(item for item in overrides.values() if isinstance(item, str))
    return {
        key: item
        if isinstance(item, str) and item.isidentifier() and words[item] == 1
        else f"{short[key]}={value(item)}"
        for key, item in overrides.items()
    }


def labels(trials: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """Labels of trials that are shown together, of at most `width` characters where that is possible.

    First the settings that all of them share are left out, from the first axis on; then the longest words are
    shortened. What differs is left as long as there is room.
    """
    whole = [_words(trial) for trial in trials]
    shared = [key for key in whole[0] if all(row.get(key) == whole[0][key] for row in whole)] if len(whole) > 1 else []
    while shared and _longest(whole) > width:
        left_out = shared.pop(0)
        whole = [{_LEFT_OUT: "…", **{key: word for key, word in row.items() if key != left_out}} for row in whole]
    rows, length = whole, max((len(word) for row in whole for word in row.values()), default=0)
    while length > _SHORTEST and _longest(rows) > width:
        length -= 1
        rows = [{key: _shortened(word, length) for key, word in row.items()} for row in whole]
    return [" ".join(row.values()) or _NO_AXES for row in rows]


def _longest(rows: Sequence[Mapping[str, str]]) -> int:
    return max((sum(map(len, row.values())) + len(row) - 1 for row in rows), default=0)


def _shortened(word: str, length: int) -> str:
    """Without its middle, since options of a group often begin or end alike; of `key=value` the key first."""
    if len(word) <= length:
        return word
    key, sign, item = word.rpartition("=")
    room = length - len(item) - 2
    if sign and room > 0:
        return f"{key[:room]}…={item}"
    if len(item) <= length or item[0].isdigit() or item[0] == "-":  # a number stays whole
        return item
    tail = (length - 1) // 2
    return f"{item[: length - 1 - tail]}…{item[len(item) - tail :]}"


def count(number: int, noun: str) -> str:
    """A number of things: "1 trial", "24 trials"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first of these names, and how many there are besides: "a.py, b.py, c.py and 4 more"."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def metric(number: float | None) -> str:
    """A metric with four significant digits; a dash if there is none."""
    return "–" if number is None else f"{number:.4g}"


def duration(seconds: float) -> str:
    """A duration in words: "0.4s", "42s", "3m 20s", "2h 05m"."""
    if 0 < seconds < 9.95 and seconds != round(seconds):
        return f"{seconds:.1f}s"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours < 48 else f"{hours // 24}d {hours % 24}h"
