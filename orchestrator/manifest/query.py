"""Which trials the user asks for, and in which order: SQL on the view `trials`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import ConfigError, nearest
from orchestrator.manifest import db
from orchestrator.model import exact_json
from orchestrator.model.sweep import State


@dataclass(frozen=True)
class Query:
    """Trials of the current plan (or of all), filtered, sorted by a metric or by position."""

    state: State | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    sort: str | None = None  # a metric; trials without a finite value come last
    descending: bool = False
    limit: int | None = None
    everything: bool = False  # trials of earlier plans too

    def select(self, connection: db.Connection, columns: str) -> tuple[str, list[Any]]:
        """The query for these columns, and its values. Raises ConfigError for a setting that no trial has."""
        condition, values = self._condition(connection)
        limit = "" if self.limit is None else f"LIMIT {self.limit}"
        return f"SELECT {columns} FROM trials WHERE {condition} ORDER BY {self._order()} {limit}", values

    def count(self, connection: db.Connection) -> tuple[str, list[Any]]:
        """The query for how many there are without the limit, and its values."""
        condition, values = self._condition(connection)
        return f"SELECT count(*) FROM trials WHERE {condition}", values

    def _condition(self, connection: db.Connection) -> tuple[str, list[Any]]:
        conditions, values = ["1" if self.everything else "current"], []
        if self.state:
            conditions.append("state = ?")
            values.append(self.state.value)
        for key, value in self.where.items():
            condition, bound = _match(connection, key, value)
            conditions.append(condition)
            values += bound
        return " AND ".join(conditions), values

    def _order(self) -> str:
        if not self.sort:
            return "current DESC, position"
        path = json_path(self.sort)
        return (
            f"json_type(metrics, {path}) IN ('real', 'integer') DESC, "
            f"json_extract(metrics, {path}) {'DESC' if self.descending else 'ASC'}, position"
        )


ALL = Query()


def _match(connection: db.Connection, key: str, value: Any) -> tuple[str, list[Any]]:
    """A condition on a setting of a trial: its axis (for a group the option), else the value in its config."""
    varied, fixed = json_path(key), json_path(*key.split("."))
    found = f"coalesce(json_extract(overrides, {varied}), json_extract(config, {fixed}))"
    known = f"(json_type(overrides, {varied}) IS NOT NULL OR json_type(config, {fixed}) IS NOT NULL)"
    if connection.execute(f"SELECT 1 FROM trials WHERE {known} LIMIT 1").fetchone() is None:
        raise _unknown_key(connection, key)
    if value is None:
        return f"({found} IS NULL AND {known})", []
    if isinstance(value, (list, dict)) or (isinstance(value, float) and not math.isfinite(value)):
        return f"{found} = ?", [exact_json.config_text(value)]
    text = str(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        value = text  # SQLite has no integers that large
    return f"({found} = ? OR CAST({found} AS TEXT) = ?)", [value, text]


def _unknown_key(connection: db.Connection, key: str) -> ConfigError:
    row = connection.execute("SELECT overrides, config FROM trials LIMIT 1").fetchone()
    keys = set(json.loads(row["overrides"])) | set(_dotted(json.loads(row["config"]))) if row else set()
    near = nearest(key, keys)
    fix = f"did you mean {near}?" if near else "see orchestrate show"
    return ConfigError(f"no trial has a key {key!r}", where="--where", fix=fix)


def _dotted(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")


def json_path(*parts: str) -> str:
    """A JSON path as an SQL literal. SQLite compares keys as text with JSON's escapes."""
    quoted = "".join("." + json.dumps(part, ensure_ascii=False) for part in parts)
    return "'$" + quoted.replace("'", "''") + "'"
