"""Writing plans: which trials a sweep holds, and their objective as the latest plan defines it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.manifest import db
from orchestrator.manifest.query import number
from orchestrator.manifest.reader import PLAN
from orchestrator.manifest.trials import FORGET_PLANNED, STANDS
from orchestrator.model import exact_json
from orchestrator.model.rows import LastPlan, PlanRow
from orchestrator.model.sweep import Objective, Resources, SweepSpec, TrialSpec

_BEFORE = """
    SELECT trial_id, overrides, refs, resources, choices, seed, config_id,
           CASE WHEN ? OR refs <> '{}' THEN config ELSE '' END
    FROM trial WHERE plan = ? ORDER BY position
"""
_MOVE_SAME = "UPDATE trial SET plan = ? WHERE plan = ? AND position < ?"
_MOVE = """
    UPDATE trial SET plan = ?, position = ?, overrides = ?, refs = ?, resources = ?, choices = ?, config_id = ?
    WHERE trial_id = ?
"""
# The seed and ignored keys are no part of an id. A result that stands keeps what it was made with; what runs from now
# on runs as the plan says.
_RENEW = f"UPDATE trial SET seed = ?1, config = coalesce(?2, config) WHERE trial_id = ?3 AND NOT {STANDS}"
_PLAN_OTHERWISE = f"""
    INSERT INTO planned_otherwise SELECT id, ?1, ?2 FROM trial
    WHERE trial_id = ?3 AND (seed <> ?1 OR config <> ?2) AND {STANDS}
"""
_PUT = """
    INSERT INTO trial (plan, position, overrides, refs, resources, choices, trial_id, seed, config_id, config)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# The plan whose trials left with the one before ?1, if that had the ?2 trials of ?1, and was written without --add.
_TAKEN_OUT = """
    SELECT max(t.plan) FROM trial t JOIN plan old USING (plan) JOIN plan before ON before.plan = ?1 - 1
    WHERE before.total = ?2 AND NOT EXISTS (SELECT 1 FROM trial WHERE plan = before.plan)
      AND NOT EXISTS (SELECT 1 FROM json_each(before.provenance, '$.options') WHERE value = '--add')
      AND t.plan < before.plan AND json_extract(old.spec, '$.trainer') = json_extract(before.spec, '$.trainer')
"""
_LATEST = "attempt = (SELECT max(attempt) FROM trial_attempt a WHERE a.trial = attempt.trial)"
_JUDGE = f"""
    UPDATE attempt SET (best_step, best) = (
        SELECT json_extract(found, '$[0]'), json_extract(found, '$[1]') FROM (
            SELECT best_of(?, ?, r.id, r.step, r.metrics) AS found
            FROM reports r JOIN trial t ON t.trial_id = r.trial_id WHERE t.id = attempt.trial))
    WHERE {_LATEST}
"""


class Plans:
    """Every method takes part in the manifest's `transaction` around it."""

    def __init__(self, connection: db.Connection) -> None:
        self._db = connection

    def begin(
        self,
        spec: SweepSpec,
        file: str,
        argv: Sequence[str],
        provenance: Mapping[str, Any],
        code: str,
        cwd: str,
    ) -> int:
        """Insert a plan, which is the current one from now on; its number."""
        cursor = self._db.execute(
            "INSERT INTO plan (created, file, argv, spec, provenance, code, cwd) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                time.time(),
                file,
                exact_json.dumps(list(argv)),
                spec.to_json(),
                exact_json.dumps(dict(provenance)),
                code,
                cwd,
            ),
        )
        return int(cursor.lastrowid or 0)

    def add_trials(self, plan: int, specs: Iterable[TrialSpec]) -> int:
        """Insert each trial, or move it into this plan if it is known; how many there were."""
        return _add_trials(self._db, plan, specs)

    def keep_last(self, plan: int, count: int) -> int:
        """Move what is left of the plan before into this one, after its `count` trials; how many there were.

        If that one has the same trials, and was written without --add: what it had taken out.
        """
        last: int = self._db.execute(_TAKEN_OUT, (plan, count)).fetchone()[0] or plan - 1
        found = self._db.execute("SELECT id FROM trial WHERE plan = ? ORDER BY position", (last,)).fetchall()
        moved = [(plan, position, row["id"]) for position, row in enumerate(found, count)]
        self._db.executemany("UPDATE trial SET plan = ?, position = ? WHERE id = ?", moved)
        return len(moved)

    def last(self, plan: int, sample: int) -> LastPlan | None:
        """The plan before this one, and what of it is not in this one; None if this is the first."""
        row = self._db.execute("SELECT spec, total FROM plan WHERE plan = ?", (plan - 1,)).fetchone()
        if row is None:
            return None
        leaving, done = self._db.execute(
            """SELECT count(*), count(CASE WHEN state IN ('SUCCEEDED', 'STOPPED') THEN 1 END)
               FROM trials JOIN trial USING (trial_id) WHERE plan = ?""",
            (plan - 1,),
        ).fetchone()
        query = "SELECT * FROM trial WHERE plan = ? ORDER BY position LIMIT ?"
        specs = [TrialSpec.from_row(each) for each in self._db.execute(query, (plan - 1, sample))]
        return LastPlan(SweepSpec.from_json(row["spec"]), row["total"] or 0, leaving, done, specs)

    def finish(self, plan: int, total: int, excluded: int, duplicates: int) -> None:
        self._db.execute(
            "UPDATE plan SET total = ?, excluded = ?, duplicates = ? WHERE plan = ?",
            (total, excluded, duplicates, plan),
        )

    def judge(self, objective: Objective | None) -> None:
        """Judge all trials again, if an earlier plan had another objective."""
        asked = "SELECT count(DISTINCT coalesce(json_extract(spec, '$.objective'), '')) FROM plan"
        if self._db.execute(asked).fetchone()[0] < 2:
            return
        if objective is None:
            self._db.execute(f"UPDATE attempt SET objective = NULL, best = NULL, best_step = NULL WHERE {_LATEST}")
            return
        self._db.execute(_JUDGE, (objective.metric, objective.mode))
        value = number("coalesce(best, last)" if objective.at == "best" else "last", objective.metric)
        known = "best_step IS NOT NULL" if objective.at == "best" else "1"
        self._db.execute(f"UPDATE attempt SET objective = CASE WHEN {known} THEN {value} END WHERE {_LATEST}")

    def end_run(self, plan: int, now: float) -> None:
        self._db.execute("UPDATE plan SET ended = ? WHERE plan = ?", (now, plan))

    def current(self) -> PlanRow | None:
        row = self._db.execute(PLAN).fetchone()
        return PlanRow.from_row(row) if row else None


def _add_trials(connection: db.Connection, plan: int, specs: Iterable[TrialSpec]) -> int:
    """Insert each trial, or move it into this plan if it is known; how many there were.

    As far as they are those of the plan before, in its order, they are moved at once.
    """
    connection.execute(FORGET_PLANNED)
    ignoring = connection.execute("SELECT json_array_length(spec, '$.ignore') FROM plan WHERE plan = ?", (plan,))
    may_differ = bool(ignoring.fetchone()[0])
    before = connection.execute(_BEFORE, (may_differ, plan - 1))
    size: Resources | None = None
    choices: Mapping[str, str | None] | None = None
    count, same, size_text, choices_text = 0, 0, "", ""
    for count, spec in enumerate(specs, 1):
        if spec.resources is not size:  # many trials share one object
            size = spec.resources
            size_text = exact_json.dumps(dataclasses.asdict(size))
        if spec.choices is not choices:
            choices = spec.choices
            choices_text = exact_json.dumps(choices)
        given = (
            exact_json.config_text(spec.overrides),
            exact_json.dumps(kept) if (kept := spec.kept()) else "{}",
            size_text,
            choices_text,
        )
        config = exact_json.config_text(spec.config) if may_differ or spec.references else ""
        if same == count - 1 and _next(before) == (spec.trial_id, *given, spec.seed, spec.config_id, config):
            same = count
        elif connection.execute(_MOVE, (plan, count - 1, *given, spec.config_id, spec.trial_id)).rowcount:
            renewed = (spec.seed, config or None, spec.trial_id)
            if not connection.execute(_RENEW, renewed).rowcount:
                connection.execute(_PLAN_OTHERWISE, renewed)
        else:
            config = config or exact_json.config_text(spec.config)
            connection.execute(_PUT, (plan, count - 1, *given, spec.trial_id, spec.seed, spec.config_id, config))
    before.close()
    connection.execute(_MOVE_SAME, (plan, plan - 1, same))
    return count


def _next(cursor: db.Cursor) -> tuple[Any, ...] | None:
    row = cursor.fetchone()
    return tuple(row) if row else None
