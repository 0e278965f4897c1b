"""Many trials as a table, CSV or JSON lines. Works column by column, so that 100,000 trials take one second."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

from orchestrator import naming
from orchestrator.errors import ConfigError, nearest
from orchestrator.manifest.db import Row
from orchestrator.manifest.query import Query
from orchestrator.manifest.reader import Reader
from orchestrator.model.exact_json import config, configs, dumps, many_metrics
from orchestrator.model.rows import TrialRow

FIXED = ("trial_id", "state", "cause", "attempts", "objective", "node", "seconds", "message")
MISSING = object()
AS_JSON = "trial_id, state, cause, overrides, config, metrics, attempts, objective, message, stale, seed"
_SHORT_ID = 8  # digits of an id in a table, as in all other output for people
_SHOWN_METRICS = 4
# The end of a lost attempt is told by another machine, whose clock may be behind: then nobody knows how long it took.
_SECONDS = "CASE WHEN started AND ended >= started THEN ended - started END AS seconds"
_PLAIN = {str, int, bool}  # equal values of these types have the same text; 0.0 and -0.0 do not


def as_json(row: TrialRow) -> dict[str, Any]:
    """A trial as a JSON object. Scripts rely on its keys."""
    return {
        "trial_id": row.trial_id,
        "state": row.state.value,
        "cause": row.cause or None,
        "overrides": row.overrides,
        "config": row.config,
        "metrics": row.metrics,
        "attempts": row.attempts,
        "objective": row.objective,
        "message": row.message or None,
        "stale": row.stale,
        "seed": row.seed,
    }


def json_line(row: Row) -> str:
    """The same object as text, from a row with the columns `AS_JSON`: JSON of the manifest is copied, not parsed."""
    trial_id, state, cause, overrides, settings, metrics, attempts, objective, message, stale, seed = row
    return (
        f'{{"trial_id":"{trial_id}","state":"{state}","cause":{dumps(cause) if cause else "null"},'
        f'"overrides":{_as_json(overrides)},"config":{_as_json(settings)},"metrics":{metrics},"attempts":{attempts},'
        f'"objective":{"null" if objective is None else _exact(objective)},'
        f'"message":{dumps(message) if message else "null"},"stale":{"true" if stale else "false"},"seed":{seed}}}\n'
    )


def _as_json(text: str) -> str:
    """The text of a config in plain JSON, without the manifest's tags for values that JSON lacks."""
    return dumps(config(text)) if '"$' in text else text


class Listing:
    """The trials to list, column by column."""

    def __init__(self, reader: Reader, query: Query, first: Sequence[str] = (), names: Sequence[str] = ()) -> None:
        """`names`: the columns; by default settings that vary, metrics (those in `first` come first) and messages."""
        self._reader, self._query = reader, query
        fixed = [name for name in FIXED if name in (names or ("trial_id", "state", "message"))]
        wanted = ", ".join(_SECONDS if name == "seconds" else name for name in [*fixed, "overrides", "metrics"])
        columns = list(zip(*reader.listed(wanted, query), strict=True)) or [()] * (len(fixed) + 2)
        self._fixed: dict[str, Sequence[Any]] = dict(zip(fixed, columns, strict=False))
        self._overrides: list[dict[str, Any]] = configs(columns[-2])
        self._metrics = many_metrics(columns[-1])
        self._settings = dict.fromkeys(chain.from_iterable(self._overrides))
        self._reported = dict.fromkeys(chain.from_iterable(self._metrics))
        self.names = list(names) or self._default_columns(first)

    def __len__(self) -> int:
        return len(self._overrides)

    def _default_columns(self, first: Sequence[str]) -> list[str]:
        metrics = dict.fromkeys(chain.from_iterable(self._metrics[:50]))
        shown = list(dict.fromkeys([*(name for name in first if name in metrics), *metrics]))[:_SHOWN_METRICS]
        extra = ["message"] if any(self._fixed["message"]) else []
        return ["trial_id", "state", *self._settings, *shown, *extra]

    def titles(self) -> list[str]:
        """The titles of the columns in a table."""
        settings = [name for name in self.names if name not in FIXED and name not in self._reported]
        short = {"trial_id": "trial", **naming.short_keys(settings)}
        return [short.get(name, name) for name in self.names]

    def cells(self, exact: bool) -> list[list[str]]:
        """Each column as text; if `exact`, with all digits. Raises ConfigError for a column that no trial has."""
        self._check()
        return [self._cells(name, exact) for name in self.names]

    def _check(self) -> None:
        known = dict.fromkeys([*FIXED, *self._settings, *self._reported])
        for name in self.names if len(self) else ():
            if name not in known and all(value is MISSING for value in self._configured(name)):
                near = nearest(name, known)
                fix = f"did you mean {near}?" if near else ", ".join(known)
                raise ConfigError(f"no trial has {name!r}", where="--columns", fix=fix)

    # ------------------------------------------------------------ one column

    def _cells(self, name: str, exact: bool) -> list[str]:
        """A column as text. A cell is empty if the trial has no value."""
        if name in FIXED:
            return self._fixed_cells(name, exact)
        setting, number = (_exact, repr) if exact else (naming.value, naming.metric)
        values = [given.get(name, MISSING) for given in self._overrides]
        if name not in self._reported:
            others = self._configured(name) if any(value is MISSING for value in values) else values
            pairs = zip(values, others, strict=True)
            return _texts([other if value is MISSING else value for value, other in pairs], setting)
        if name not in self._settings and all(name in reported for reported in self._metrics):
            return [number(reported[name]) for reported in self._metrics]
        rest = zip(values, self._metrics, self._configured(name), strict=True)
        return [
            _text(value, setting)
            if value is not MISSING
            else number(reported[name])
            if name in reported
            else _text(other, setting)
            for value, reported, other in rest
        ]

    def _fixed_cells(self, name: str, exact: bool) -> list[str]:
        values = self._fixed[name]
        if name == "trial_id":
            return list(values) if exact else [value[:_SHORT_ID] for value in values]
        if name == "seconds":
            return ["" if value is None else f"{value:.3f}" for value in values]
        return _texts([MISSING if value is None else value for value in values], _exact if exact else naming.value)

    def _configured(self, name: str) -> Iterator[Any]:
        """The value in each trial's config, whether it varies or not."""
        parts = name.split(".")
        return (_lookup(settings, parts) for settings in self._configs)

    @cached_property
    def _configs(self) -> list[Any]:
        """Read only if a column needs them, because configs are by far the largest part of the manifest."""
        return configs([text for (text,) in self._reader.listed("config", self._query)])


def _texts(values: Sequence[Any], text: Callable[[Any], str]) -> list[str]:
    """Each value as text. Equal values are converted only once, which is faster if a column has few different ones."""
    types = set(map(type, values))
    if len(types) == 1 and types <= _PLAIN:
        known = {value: text(value) for value in set(values)}
        return [known[value] for value in values]
    return [_text(value, text) for value in values]


def _text(value: Any, text: Callable[[Any], str]) -> str:
    return "" if value is MISSING else text(value)


def _exact(value: Any) -> str:
    if type(value) is float and math.isfinite(value):
        return repr(value)  # the same text as JSON, and much faster
    return value if isinstance(value, str) else dumps(value)


def _lookup(settings: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        if not isinstance(settings, Mapping) or part not in settings:
            return MISSING
        settings = settings[part]
    return settings
