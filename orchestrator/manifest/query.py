"""Which trials the user asks for, and in which order: SQL on the view `trials`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from orchestrator.model import exact_json
from orchestrator.model.sweep import Objective, State

At = Literal["last", "best"]
# The end of a lost attempt is told by another machine, whose clock may be behind: then nobody knows how long it took.
_SECONDS = "CASE WHEN started AND ended >= started THEN ended - started END"
_NUMBERS = "('integer', 'real')"
_OF_SEVERAL = ("=", "!=")  # operators that take several values


class Column(NamedTuple):
    """A column of the list of trials. Columns of different kinds may have one name."""

    kind: Literal["fixed", "objective", "setting", "metric"]
    name: str  # a column of the view `trials` or `seconds`; the dotted key of a setting; a metric


TRIAL = Column("fixed", "trial_id")  # in a condition, the first digits of an id name a trial


class Condition(NamedTuple):
    """A condition on a column: it has one of the values, has none of them (`!=`), or is above or below a number."""

    column: Column
    operator: str  # =, !=, <, <=, > or >=
    values: Sequence[Any]


class Shown(NamedTuple):
    """SQL for what is shown of a trial: its metrics, its objective, and its state."""

    metrics: str = "metrics"
    objective: str = "objective"
    state: str = "state"

    def without_coordinator(self) -> Shown:
        """Where nobody runs the sweep: trials that the manifest has as running wait, since their coordinator died."""
        return self._replace(state="CASE WHEN state IN ('LAUNCHING', 'RUNNING') THEN 'PENDING' ELSE state END")

    @classmethod
    def at(cls, objective: Objective | None, at: At | None) -> Shown:
        """At the last or the best step of the objective; None: as the sweep file says."""
        if objective is None:
            return cls()
        metrics = "best_metrics" if (at or objective.at) == "best" else "metrics"
        if at in (None, objective.at):
            return cls(metrics)
        value = number(metrics, objective.metric)
        return cls(metrics, f"CASE WHEN best_step IS NOT NULL THEN {value} END" if at == "best" else value)


AS_THE_FILE_SAYS = Shown()


@dataclass(frozen=True)
class Query:
    """Trials of the current plan (or of all), filtered, sorted by a metric or by position."""

    states: Sequence[State] = ()  # none: in any state
    where: Sequence[Condition] = ()
    sort: str | None = None  # a metric; trials without a finite value come last
    descending: bool = False
    limit: int | None = None
    everything: bool = False  # trials of earlier plans too
    shown: Shown = AS_THE_FILE_SAYS
    ids: Sequence[str] | None = None  # only these trials

    def select(self, columns: str) -> tuple[str, list[Any]]:
        """The query for these columns, and its values."""
        condition, values = self._condition()
        limit = "" if self.limit is None else f"LIMIT {self.limit}"
        return f"SELECT {columns} FROM trials WHERE {condition} ORDER BY {self._order()} {limit}", values

    def count(self) -> tuple[str, list[Any]]:
        """The query for how many there are without the limit, and its values."""
        condition, values = self._condition()
        return f"SELECT count(*) FROM trials WHERE {condition}", values

    def sql(self, column: Column) -> str:
        """SQL for a column that is one of the view, or the objective."""
        if column.kind == "objective":
            return self.shown.objective
        if column.name == "state":
            return self.shown.state
        return _SECONDS if column.name == "seconds" else column.name

    def _condition(self) -> tuple[str, list[Any]]:
        conditions, values = ["1" if self.everything else "current"], []
        if self.states:
            conditions.append(f"{self.shown.state} IN ({', '.join('?' * len(self.states))})")
            values += [state.value for state in self.states]
        if self.ids is not None:
            conditions.append("trial_id IN (SELECT value FROM json_each(?))")
            values.append(exact_json.dumps(list(self.ids)))
        for each in self.where:
            found, kind = self._typed(each.column)
            condition, bound = _compared(found, kind, each)
            conditions.append(condition)
            values += bound
        return " AND ".join(conditions), values

    def _typed(self, column: Column) -> tuple[str, str]:
        """SQL for the value of a column, and for its type as `json_type` says it."""
        if column.kind in ("fixed", "objective"):
            found = self.sql(column)
            return f"({found})", f"typeof({found})"
        path = json_path(column.name)
        if column.kind == "metric":
            return f"json_extract({self.shown.metrics}, {path})", f"json_type({self.shown.metrics}, {path})"
        # The option of a group, where the trial has one; else the value in its config.
        places = [("overrides", path), ("choices", path), ("config", json_path(*column.name.split(".")))]
        values, kinds = (
            ", ".join(f"{function}({place}, {path})" for place, path in places)
            for function in ("json_extract", "json_type")
        )
        return f"coalesce({values})", f"coalesce({kinds})"

    def _order(self) -> str:
        if not self.sort:
            return "current DESC, position" if self.everything else "position"  # an index has the plan's order
        metrics, path = self.shown.metrics, json_path(self.sort)
        return (
            f"json_type({metrics}, {path}) IN {_NUMBERS} DESC, "
            f"json_extract({metrics}, {path}) {'DESC' if self.descending else 'ASC'}, position"
        )


ALL = Query()


def _compared(found: str, kind: str, condition: Condition) -> tuple[str, list[Any]]:
    """A condition as SQL, and its values."""
    if condition.operator not in _OF_SEVERAL:
        return f"({kind} IN {_NUMBERS} AND {found} {condition.operator} ?)", [_bound(condition.values[0])]
    text = exact_json.tagged if condition.column.kind == "metric" else exact_json.config_text
    if condition.column == TRIAL:
        parts = [(f"substr({found}, 1, length(?)) = ?", [first, first]) for first in condition.values]
    else:
        parts = [_equal(found, kind, value, text) for value in condition.values]
    any_of = " OR ".join(sql for sql, _ in parts)
    values = [value for _, values in parts for value in values]
    return f"NOT coalesce(({any_of}), 0)" if condition.operator == "!=" else f"({any_of})", values


def _equal(found: str, kind: str, value: Any, text: Callable[[Any], str]) -> tuple[str, list[Any]]:
    """`text`: how the column holds what JSON lacks."""
    if value is None:
        return f"{kind} = 'null'", []
    if isinstance(value, bool):
        return f"{kind} = '{'true' if value else 'false'}'", []
    if isinstance(value, (list, dict)) or (isinstance(value, float) and not math.isfinite(value)):
        return f"{found} = ?", [text(value)]
    if isinstance(value, str):  # a text that looks like a number may stand for one
        return f"({kind} NOT IN ('true', 'false') AND CAST({found} AS TEXT) = ?)", [value]
    same = f"({kind} IN {_NUMBERS} AND {found} = ?)"
    return f"({same} OR ({kind} = 'text' AND {found} = ?))", [_bound(value), str(value)]


def _bound(value: Any) -> Any:
    """SQLite has no integers of more than 64 bits."""
    return float(value) if isinstance(value, int) and abs(value) >= 2**63 else value


def number(column: str, metric: str) -> str:
    """SQL for the value of a metric in a column of JSON; NULL where it is missing or not finite."""
    path = json_path(metric)
    return f"CASE WHEN json_type({column}, {path}) IN {_NUMBERS} THEN json_extract({column}, {path}) END"


def json_path(*parts: str) -> str:
    """A JSON path as an SQL literal. SQLite compares keys as text with JSON's escapes."""
    quoted = "".join("." + json.dumps(part, ensure_ascii=False) for part in parts)
    return "'$" + quoted.replace("'", "''") + "'"
