"""`--where 'lr>0.01'`: conditions on settings, metrics and fixed columns, as a person types them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.errors import ConfigError, nearest
from orchestrator.manifest.query import TRIAL, Column, Condition
from orchestrator.model.sweep import State
from orchestrator.results.names import Names

OPTION = "--where"
STATE = Column("fixed", "state")
_WORD = re.compile(r"(.*?)\s*(!=|>=|<=|=|<|>)(.*)", re.DOTALL)


def condition(word: str, names: Names, typed: Callable[[str], Any]) -> Condition:
    """A condition such as `lr>0.01`, `model!=gru` or `dropout=0,0.3`. Raises ConfigError.

    `typed` reads a value as the sweep file would.
    """
    match = _WORD.fullmatch(word)
    if match is None or not match[1].strip():
        fix = f"{OPTION} optimizer=adam,SGD, {OPTION} 'lr>0.01' or {OPTION} 'model!=gru'"
        raise ConfigError(f"{word!r} is no condition", where=OPTION, fix=fix)
    key, operator, text = match[1].strip(), match[2], match[3].strip()
    column = names.find(key, OPTION)
    if column == TRIAL and operator in ("=", "!="):  # first digits, which YAML may read as a number
        return Condition(column, operator, [part.strip() for part in text.split(",")])
    if operator in ("=", "!="):
        values = _values(word, text, typed)
        if column.kind == "metric":
            values = list(map(_number, values))
        return Condition(column, operator, values) if column != STATE else _in_states(operator, values)
    (value, *more) = _values(word, text, typed)
    if more or isinstance(value, bool) or not isinstance(value, (int, float)):
        fix = f"for example {OPTION} '{key}{operator}0.01'"
        raise ConfigError(f"{word!r}: {operator} needs one number", where=OPTION, fix=fix)
    return Condition(column, operator, [value])


def _number(value: Any) -> Any:
    """A metric is a number; one that is not finite may be written as a table or a file has it: nan, -inf, Infinity."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _in_states(operator: str, names: Sequence[Any]) -> Condition:
    return Condition(STATE, operator, [state.value for name in names for state in states(str(name), OPTION)])


def states(name: str, option: str) -> tuple[State, ...]:
    """The states that a person means, by the constant or by the word that people are told. Raises ConfigError."""
    found = [state for state in State if state.value == name.upper()]
    found = found or [state for state in State if state.word == name.lower()]
    if not found:
        words = list(dict.fromkeys(state.word for state in State))
        near = nearest(name, [*words, *(state.value.lower() for state in State)])
        fix = f"did you mean {near}?" if near else ", ".join(words)
        raise ConfigError(f"no such state: {name}", where=option, fix=fix)
    return tuple(found)


def _values(word: str, text: str, typed: Callable[[str], Any]) -> list[Any]:
    """The values between the commas; a list in brackets is one value."""
    try:
        found = typed(f"[{text}]")
    except ValueError:
        found = None
    if isinstance(found, list) and found:
        return found
    try:
        return [typed(text)]
    except ValueError as error:
        raise ConfigError(f"{word!r}: {error}", where=OPTION, fix="quote the value") from error
