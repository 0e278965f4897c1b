"""Functions of ours in SQL, for the connections that migrate, judge and read older manifests."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.decide import standing
from orchestrator.manifest import db
from orchestrator.model import exact_json
from orchestrator.model.sweep import Objective


def add(connection: db.Connection) -> None:
    """Add `best_of(metric, mode, id, step, metrics)`: see `_BestOf`."""
    connection.create_aggregate("best_of", 5, _BestOf)  # type: ignore[arg-type]


class _BestOf:
    """An aggregate over the rows of a series: JSON of the best step and all metrics at it; NULL where there is none."""

    def __init__(self) -> None:
        self._objective: Objective | None = None
        self._rows: list[tuple[int, int, str]] = []

    def step(self, metric: str, mode: Any, number: int, step: int, metrics: str) -> None:
        self._objective = self._objective or Objective(metric, mode, "best")
        self._rows.append((number, step, metrics))

    def finalize(self) -> str | None:
        if self._objective is None:
            return None
        rows = [(step, json.loads(text)) for _, step, text in sorted(self._rows)]
        best = standing.best_step(self._objective, rows)
        return None if best is None else exact_json.dumps([best, standing.metrics_at(best, rows)[0]])
