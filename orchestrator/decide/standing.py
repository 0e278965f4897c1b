"""What a series of metrics has reached: the last value of each metric, and all metrics at the best step of the
objective. Pure.

A metric that was not reported at the best step has its last value at or before that step. Rows of one step are merged,
later ones over earlier ones. Of several equally good steps the first is the best.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import lt
from typing import Any

from orchestrator.model.sweep import Objective

Row = tuple[int, Mapping[str, Any]]  # step and metrics; values that are not finite are text


def better(objective: Objective, new: float, old: float | None) -> bool:
    """Whether `new` is better than `old`. NaN is never better."""
    if new != new:
        return False
    if old is None:
        return True
    return new > old if objective.mode == "max" else new < old


def number(value: Any) -> float | None:
    """A value as the manifest keeps it, if it is finite."""
    return value if isinstance(value, (int, float)) else None


def best_step(objective: Objective, rows: Iterable[Row]) -> int | None:
    """The step with the best finite objective. `rows` in the order of their arrival."""
    metric, values = objective.metric, {}
    for step, metrics in rows:
        if metric in metrics:
            values[step] = number(metrics[metric])
    found, best = None, None
    for step in sorted(values):
        value = values[step]
        if value is not None and better(objective, value, best):
            found, best = step, value
    return found


def metrics_at(step: int, rows: Iterable[Row]) -> tuple[dict[str, Any], dict[str, int]]:
    """Each metric's last value at or before a step, and the step of that value. `rows` in the order of arrival."""
    values: dict[str, Any] = {}
    steps: dict[str, int] = {}
    for at, metrics in rows:
        if at <= step:
            _merge(values, steps, at, metrics)
    return values, steps


def _merge(values: dict[str, Any], steps: dict[str, int], step: int, row: Mapping[str, Any]) -> None:
    """Take in one more row, unless what is known of a metric is from a later step."""
    for name, value in row.items():
        if step >= steps.get(name, step):
            values[name], steps[name] = value, step


class Standing:
    """The standing of a series whose rows come one by one.

    Nearly always they come in the order of their steps, and each row costs a few updates of dictionaries. Only where a
    row changes what was before the newest step may rows have to be read again: up to `unsure`, by `settle`.
    """

    def __init__(self, objective: Objective | None, rows: Sequence[Row] = ()) -> None:
        self._objective = objective
        self._newest = -1  # step
        self._values: dict[str, Any] = {}  # the last of each metric by step, and their steps
        self._steps: dict[str, int] = {}
        self._best_steps: dict[str, int] = {}  # of each value of `best`
        self._best: float | None = None
        self._overwritten = False  # the best value was, by a worse one: another step may be the best now
        self.last: dict[str, Any] = self._values  # by arrival: a dictionary of its own once a step came late
        self.best: dict[str, Any] | None = None  # at the best step; None: no objective was reported
        self.best_step: int | None = None
        self.unsure: int | None = None  # `best` is right only after the rows up to this step were read again
        for step, row in rows:
            self.take(step, row)
        if self.unsure is not None:
            self.settle([row for row in rows if row[0] <= (self.unsure or 0)])

    @property
    def objective(self) -> float | None:
        """Its value, at the last or the best step as `sweep.objective.at` says."""
        if self._objective is None:
            return None
        return self._best if self._objective.at == "best" else number(self.last.get(self._objective.metric))

    @property
    def shown(self) -> Mapping[str, Any]:
        """The metrics at the step of the objective."""
        at_best = self._objective is not None and self._objective.at == "best"
        return self.best if at_best and self.best is not None else self.last

    def take_all(self, steps: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> None:
        """As `take` for each row. Where steps grow and all rows have the same metrics, only two of them matter."""
        count, names = len(rows), rows[-1].keys() if rows else None
        ordered = (
            bool(rows) and steps[0] > self._newest and all(map(lt, steps, steps[1:])) and self.last is self._values
        )
        if count > 2 and ordered and all(row.keys() == names for row in rows):
            matter = {self._best_of(rows), count - 1}
        else:
            matter = set(range(count))
        for at in sorted(matter):
            self.take(steps[at], rows[at])

    def _best_of(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """The position of the best of these rows, which have the same metrics; any of them if none is."""
        if self._objective is None or self._objective.metric not in rows[0]:
            return 0
        values = [number(row[self._objective.metric]) for row in rows]
        finite = [value for value in values if value is not None]
        best = max if self._objective.mode == "max" else min
        return values.index(best(finite)) if finite else 0

    def take(self, step: int, row: Mapping[str, Any]) -> None:
        """Take in one more row."""
        if step >= self._newest:
            self._newest = step
            self._values.update(row)
            self._steps.update(dict.fromkeys(row, step))
        else:
            if self.last is self._values:
                self.last = dict(self._values)
            _merge(self._values, self._steps, step, row)
        if self.last is not self._values:
            self.last.update(row)
        if self._objective is not None:
            self._judge(self._objective, step, row)

    def _judge(self, objective: Objective, step: int, row: Mapping[str, Any]) -> None:
        value = number(row.get(objective.metric))
        before = self._best
        if self._overwritten:
            self.unsure = self._newest
            return
        if step == self.best_step and objective.metric in row and value != before:
            self._best = value
            if value is None or not better(objective, value, before):
                self._overwritten, self.unsure = True, self._newest
                return
        elif value is not None and (
            better(objective, value, before) or (value == before and step < (self.best_step or 0))
        ):
            self.best_step, self._best = step, value
            if step < self._newest:
                self.unsure = max(step, self.unsure or 0)
            else:
                self.best, self._best_steps, self.unsure = dict(self._values), dict(self._steps), None
            return
        if self.best is not None and self.best_step is not None and step <= self.best_step:
            _merge(self.best, self._best_steps, step, row)

    def settle(self, rows: Sequence[Row]) -> None:
        """Find the best step and its metrics in the rows up to `unsure`, in the order of arrival."""
        assert self._objective is not None
        self.best, self._best_steps, self._best = None, {}, None
        self.unsure, self._overwritten = None, False
        self.best_step = best_step(self._objective, rows)
        if self.best_step is not None:
            self.best, self._best_steps = metrics_at(self.best_step, rows)
            self._best = self.best[self._objective.metric]

    def forget(self, names: Iterable[str]) -> None:
        """Keep no value of these metrics."""
        for name in names:
            for known in (self.last, self._values, self._steps, self.best or {}, self._best_steps):
                known.pop(name, None)
