"""Many trials as a table, CSV or JSON lines. Works column by column, so that 100,000 trials take one second."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat
from typing import Any

from orchestrator import naming
from orchestrator.decide import ranking
from orchestrator.manifest.query import At, Column, Query
from orchestrator.manifest.reader import Reader
from orchestrator.model.exact_json import config, configs, dumps, many_metrics
from orchestrator.model.rows import TrialRow
from orchestrator.model.sweep import Objective, State
from orchestrator.results.names import OBJECTIVE, Names

Row = tuple[Any, ...]
MISSING = object()
_SHORT_ID = 8  # digits of an id in a table, as in all other output for people
_SHOWN_METRICS = 4
_PLAIN = {str, int, bool}  # equal values of these types have the same text; 0.0 and -0.0 do not


@dataclass(frozen=True)
class Request:
    """The trials to list, and in which order."""

    query: Query
    objective: Objective | None
    at: At  # the step of the objective whose metrics are shown
    ranked: bool = True  # in the order of the objective, if there is one; else as the query says
    worst_first: bool = False


def as_json(row: TrialRow, objective: Objective | None = None, at: At | None = None) -> dict[str, Any]:
    """A trial as a JSON object, with its metrics at the step of the objective. Scripts rely on its keys."""
    at = at or (objective.at if objective else "last")
    best = at == "best"
    value = row.objective
    if objective is not None and at != objective.at:
        shown = (row.best_metrics if row.best_step is not None else {}) if best else row.metrics
        found = shown.get(objective.metric)
        value = found if found is not None and math.isfinite(found) else None
    return {
        "trial_id": row.trial_id,
        "state": row.state.value,
        "cause": row.cause or None,
        "overrides": row.overrides,
        "choices": row.choices,
        "config": row.config,
        "at": at,
        "metrics": row.best_metrics if best else row.metrics,
        "best_step": row.best_step,
        "attempts": row.attempts,
        "objective": value,
        "message": row.message or None,
        "stale": row.stale,
        "seed": row.seed,
        "config_id": row.config_id,
    }


def json_lines(reader: Reader, request: Request) -> Iterator[str]:
    """The same objects as text: JSON of the manifest is copied, not parsed."""
    shown = request.query.shown
    columns = f"cause, overrides, choices, config, {shown.metrics}, best_step, attempts, message, stale, seed"
    return map(_json_line, _rows(reader, request, columns), repeat(request.at))


def _json_line(row: Row, at: At) -> str:
    trial_id, config_id, state, objective, cause, overrides, choices, settings, metrics, step, *rest = row
    attempts, message, stale, seed = rest
    return (
        f'{{"trial_id":"{trial_id}","state":"{state}","cause":{dumps(cause) if cause else "null"},'
        f'"overrides":{_as_json(overrides)},"choices":{choices},"config":{_as_json(settings)},"at":"{at}",'
        f'"metrics":{metrics},"best_step":{"null" if step is None else step},"attempts":{attempts},'
        f'"objective":{"null" if objective is None else _exact(objective)},'
        f'"message":{dumps(message) if message else "null"},"stale":{"true" if stale else "false"},"seed":{seed},'
        f'"config_id":"{config_id}"}}\n'
    )


def _as_json(text: str) -> str:
    """The text of a config in plain JSON, without the manifest's tags for values that JSON lacks."""
    return dumps(config(text)) if '"$' in text else text


def _rows(reader: Reader, request: Request, columns: str) -> list[Row]:
    """Rows of `Reader.candidates` with these columns, of the trials that are asked for, in their order."""
    query, objective = request.query, request.objective
    if not request.ranked or objective is None:
        return reader.candidates(query, columns)
    all_of_plan = dataclasses.replace(query, states=(), where=(), limit=None, everything=False)
    filtered = bool(query.states or query.where or query.everything)
    limit = query.limit
    unlimited = dataclasses.replace(query, limit=None)
    if limit is None and not filtered:
        rows = reader.candidates(unlimited, columns)
        candidates: Sequence[Any] = [row[:4] for row in rows]
    else:
        candidates = reader.candidates(all_of_plan)
        rows = []
    order = ranking.rank(candidates, objective.mode, worst_first=request.worst_first).trials()
    if limit is not None:
        order = _some(order, reader, unlimited, filtered, limit)
        rows = reader.candidates(dataclasses.replace(query, limit=None, ids=order), columns)
    elif filtered:
        rows = reader.candidates(unlimited, columns)
    known = {row[0]: row for row in rows}
    if not filtered:
        return [known[trial_id] for trial_id in order]
    found = [known.pop(trial_id) for trial_id in order if trial_id in known]
    return [*found, *known.values()]


def _some(order: list[str], reader: Reader, query: Query, filtered: bool, limit: int) -> list[str]:
    """The first trials of those in order that the query selects; those that are not ranked come last."""
    if filtered:
        selected = dict.fromkeys(row[0] for row in reader.listed("trial_id", query))
        first = [trial_id for trial_id in order if trial_id in selected]
        order = list(dict.fromkeys([*first, *selected]))
    return order[:limit]


class Listing:
    """The trials to list, column by column."""

    def __init__(
        self,
        reader: Reader,
        request: Request,
        names: Names | None = None,
        columns: Sequence[Column] = (),
        *,
        everything: bool = False,
    ) -> None:
        """`columns`: by default settings that vary, the objective, metrics (first that of the order) and messages.

        `everything`: all metrics, not only the first ones. `names`: of all columns that a user has named.
        """
        self._reader, self._query = reader, request.query
        fixed = [column for column in columns or _FIXED if column.kind == "fixed"]
        wanted = ", ".join([*map(request.query.sql, fixed), "overrides", request.query.shown.metrics])
        rows = _rows(reader, request, wanted)
        found: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * (len(fixed) + 6)
        self.ids: Sequence[str] = found[0]
        self._fixed: dict[Column, Sequence[Any]] = {OBJECTIVE: found[3], **dict(zip(fixed, found[4:-2], strict=True))}
        self._overrides: list[dict[str, Any]] = configs(found[-2])
        self._metrics = many_metrics(found[-1])
        self.names = names or Names(
            chain.from_iterable(self._overrides), chain.from_iterable(self._metrics), request.objective, request.at
        )
        self.left_out = 0  # metrics
        self.columns = list(columns) or self._default_columns(request, everything)
        metrics = [position for position, column in enumerate(self.columns) if column.kind == "metric"]
        self.optional = [] if columns else metrics  # positions of columns that nobody has named

    def __len__(self) -> int:
        return len(self._overrides)

    def _default_columns(self, request: Request, everything: bool) -> list[Column]:
        objective, first = request.objective, request.query.sort
        metrics = dict.fromkeys(name for name in [first or "", *self.names.metrics] if name in self.names.metrics)
        if objective is not None and not everything:
            metrics.pop(objective.metric, None)  # the objective's column has it
        shown = list(metrics)[: None if everything else _SHOWN_METRICS]
        self.left_out = len(metrics) - len(shown)
        message = Column("fixed", "message")
        return [
            *_FIXED[:2],
            *(Column("setting", name) for name in self.names.settings),
            *([OBJECTIVE] if objective is not None else []),
            *(Column("metric", name) for name in shown),
            *([message] if any(self._fixed[message]) else []),
        ]

    def titles(self) -> list[str]:
        """The titles of the columns in a table."""
        return list(map(self.names.title, self.columns))

    def headers(self) -> list[str]:
        """The names of the columns in CSV."""
        return list(map(self.names.name, self.columns))

    def cells(self, exact: bool) -> list[list[str]]:
        """Each column as text; if `exact`, with all digits."""
        return [self._cells(column, exact) for column in self.columns]

    # ------------------------------------------------------------ one column

    def _cells(self, column: Column, exact: bool) -> list[str]:
        """A column as text. A cell is empty if the trial has no value."""
        setting, number = (_exact, repr) if exact else (naming.value, naming.metric)
        name = column.name
        if column.kind == "metric":
            if all(name in reported for reported in self._metrics):
                return [number(reported[name]) for reported in self._metrics]
            return [number(reported[name]) if name in reported else "" for reported in self._metrics]
        if column.kind == "setting":
            values = [given.get(name, MISSING) for given in self._overrides]
            if any(value is MISSING for value in values):
                pairs = zip(values, self._configured(name), strict=True)
                values = [other if value is MISSING else value for value, other in pairs]
            return _texts(values, setting)
        values = list(self._fixed[column])
        if column == OBJECTIVE:
            return ["" if value is None else number(value) for value in values]
        if name == "trial_id":
            return values if exact else [value[:_SHORT_ID] for value in values]
        if name == "state" and not exact:
            return [State(value).word for value in values]
        if name == "seconds":
            return ["" if value is None else f"{value:.3f}" for value in values]
        return _texts([MISSING if value is None else value for value in values], _exact if exact else naming.value)

    def _configured(self, name: str) -> Iterator[Any]:
        """The option that each trial has of this group, else the value in its config, whether it varies or not."""
        parts = name.split(".")
        for choices, settings in self._configs:
            yield choices[name] if name in choices else _lookup(settings, parts)

    @cached_property
    def _configs(self) -> list[tuple[Any, Any]]:
        """Read only if a column needs them, because configs are by far the largest part of the manifest."""
        query = dataclasses.replace(self._query, limit=None, ids=self.ids)
        rows = self._reader.listed("trial_id, choices, config", query)
        found = dict(
            zip(
                [row[0] for row in rows],
                zip(configs([row[1] for row in rows]), configs([row[2] for row in rows]), strict=True),
                strict=True,
            )
        )
        return [found[trial_id] for trial_id in self.ids]


_FIXED = (Column("fixed", "trial_id"), Column("fixed", "state"), Column("fixed", "message"))


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
