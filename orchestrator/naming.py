"""Labels and numbers for people: a trial is named by the settings that vary, as briefly as possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any


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
    short = short_keys(overrides)
    words = Counter(item for item in overrides.values() if isinstance(item, str))
    parts = [
        item if isinstance(item, str) and item.isidentifier() and words[item] == 1 else f"{short[key]}={value(item)}"
        for key, item in overrides.items()
    ]
    return " ".join(parts) or "(no axes)"


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
