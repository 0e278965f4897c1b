"""Numbers with units, as they are written in a sweep file. A wrong one is a ValueError that says what is expected."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_UNITS = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_UNITS |= {unit + "i": 2 ** (10 * power) for power, unit in enumerate("kmgtp", start=1)}
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def number(value: Any) -> float:
    """A finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError("a number that is not negative")
    return float(value)


def seconds(value: Any) -> float:
    """A duration: a number of seconds, or text such as `90s`, `5m`, `2h`."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", value) if isinstance(value, str) else None
    if found and found.group(2) in _SECONDS:
        return float(found.group(1)) * _SECONDS[found.group(2)]
    try:
        return number(value)
    except ValueError:
        raise ValueError("a duration such as 90s, 5m or 2h") from None


def size(value: Any) -> int:
    """Bytes: a number, or text such as `512MB`, `4GB`, `4GiB`."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?i?)b?\s*", value.lower()) if isinstance(value, str) else None
    if found and found.group(2) in _UNITS:
        return int(float(found.group(1)) * _UNITS[found.group(2)])
    try:
        return int(number(value))
    except ValueError:
        raise ValueError("a size such as 512MB or 4GiB") from None


def amount(value: Any) -> Any:
    """A number, or `auto`."""
    return "auto" if value == "auto" else number(value)


def gpus(value: Any) -> Any:
    """A number of GPUs, or `auto`."""
    found = amount(value)
    if found != "auto" and found > 1 and found != int(found):
        raise ValueError("whole GPUs, or a fraction below 1")
    return found


def amounts(value: Any) -> dict[str, float]:
    """Amounts of custom resources."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError("a mapping of resources to amounts")
    return {key: number(amount) for key, amount in value.items()}


def labels(value: Any) -> dict[str, str]:
    """Labels of nodes."""
    if not isinstance(value, Mapping) or not all(isinstance(x, str) for pair in value.items() for x in pair):
        raise ValueError("a mapping of labels to texts")
    return dict(value)
