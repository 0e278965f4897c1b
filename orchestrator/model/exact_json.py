"""Values as JSON text that gives them back exactly, and that SQLite can read too."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_PLAIN = frozenset({str, int, bool, type(None)})
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def dumps(value: Any) -> str:
    """JSON text that SQLite can read too: numbers that are not finite become strings."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(tagged(value), ensure_ascii=False, separators=(",", ":"))


def tagged(value: Any) -> Any:
    """The same value, with names for numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, Mapping):
        return {key: tagged(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [tagged(item) for item in value]
    return value


def config_text(value: Any) -> str:
    """A config as JSON that gives it back exactly: what JSON lacks is written as {"$float": …} and {"$items": …}."""
    return _encode(value if _is_json(value) else _exact(value))


def config(text: str) -> Any:
    """Undo `config_text`."""
    value = json.loads(text)
    return _original(value) if '"$' in text else value


def configs(texts: Sequence[str]) -> list[Any]:
    """Undo `config_text` for many texts: one long text is parsed faster than many short ones."""
    joined = f"[{','.join(texts)}]"
    found: list[Any] = json.loads(joined)
    return [_original(value) for value in found] if '"$' in joined else found


def many_metrics(texts: Sequence[str]) -> list[dict[str, float]]:
    """`metrics` for many texts."""
    joined = f"[{','.join(texts)}]"
    found: list[dict[str, float]] = json.loads(joined)
    return list(map(_numbers, found)) if 'NaN"' in joined or 'Infinity"' in joined else found


def _is_json(value: Any) -> bool:
    """Whether plain JSON gives the value back exactly. Nearly every config passes, and the check is 5 times faster than
    a copy.
    """
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or key[:1] == "$" or not (type(item) in _PLAIN or _is_json(item)):
                return False
        return True
    if kind is list:
        return all(map(_is_json, value))
    return kind in _PLAIN or (kind is float and math.isfinite(value))


def _exact(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": tagged(value)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key not in ("$float", "$items") for key in value):
            return {key: _exact(item) for key, item in value.items()}
        return {"$items": [[_exact(key), _exact(item)] for key, item in value.items()]}
    return [_exact(item) for item in value] if isinstance(value, (list, tuple)) else value


def _original(value: Any) -> Any:
    if isinstance(value, list):
        return [_original(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$float" in value:
        return _FINITE[value["$float"]]
    if "$items" in value:
        return {_original(key): _original(item) for key, item in value["$items"]}
    return {key: _original(item) for key, item in value.items()}


def metrics(text: str) -> dict[str, float]:
    """Metrics as numbers, from JSON text."""
    return _numbers(json.loads(text))


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    return {key: _FINITE[value] if isinstance(value, str) else value for key, value in found.items()}
