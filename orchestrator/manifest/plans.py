"""Writing the trials of a plan: only what differs from the plan before is written one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from orchestrator.manifest import db, rows
from orchestrator.model.sweep import Resources, TrialSpec

_BEFORE = """
    SELECT trial_id, overrides, refs, resources, CASE WHEN ? THEN config ELSE '' END
    FROM trial WHERE plan = ? ORDER BY position
"""
_MOVE_SAME = "UPDATE trial SET plan = ? WHERE plan = ? AND position < ?"
_MOVE = "UPDATE trial SET plan = ?, position = ?, overrides = ?, refs = ?, resources = ? WHERE trial_id = ?"
_RENEW_CONFIG = """
    UPDATE trial SET config = ?1 WHERE trial_id = ?2 AND config <> ?1 AND NOT EXISTS (
        SELECT 1 FROM attempt WHERE trial = trial.id AND state = 'SUCCEEDED')
"""  # ignored keys are no part of an id: their new values are for what is still to run
_PUT = """
    INSERT INTO trial (plan, position, overrides, refs, resources, trial_id, seed, config_id, config)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def add_trials(connection: db.Connection, plan: int, specs: Iterable[TrialSpec]) -> int:
    """Insert, or move into this plan, each trial; how many there were.

    As far as they are those of the plan before, in its order, they are moved at once.
    """
    ignoring = connection.execute("SELECT json_array_length(spec, '$.ignore') FROM plan WHERE plan = ?", (plan,))
    may_differ = bool(ignoring.fetchone()[0])
    before = connection.execute(_BEFORE, (may_differ, plan - 1))
    size: Resources | None = None
    count, same, size_text = 0, 0, ""
    for count, spec in enumerate(specs, 1):
        if spec.resources is not size:  # many trials share one object
            size = spec.resources
            size_text = rows.dumps(dataclasses.asdict(size))
        given = rows.config_text(spec.overrides), rows.dumps(spec.references) if spec.references else "{}", size_text
        config = rows.config_text(spec.config) if may_differ else ""
        if same == count - 1 and _next(before) == (spec.trial_id, *given, config):
            same = count
        elif not connection.execute(_MOVE, (plan, count - 1, *given, spec.trial_id)).rowcount:
            config = config or rows.config_text(spec.config)
            connection.execute(_PUT, (plan, count - 1, *given, spec.trial_id, spec.seed, spec.config_id, config))
        elif may_differ:
            connection.execute(_RENEW_CONFIG, (config, spec.trial_id))
    before.close()
    connection.execute(_MOVE_SAME, (plan, plan - 1, same))
    return count


def _next(cursor: db.Cursor) -> tuple[Any, ...] | None:
    row = cursor.fetchone()
    return tuple(row) if row else None
