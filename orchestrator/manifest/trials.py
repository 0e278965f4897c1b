"""Which trials wait for an attempt, and asking for further ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from orchestrator.manifest import db
from orchestrator.manifest.query import json_path
from orchestrator.manifest.stale import STALE
from orchestrator.model import exact_json
from orchestrator.model.rows import Due
from orchestrator.model.sweep import Resources, SweepSpec, TrialSpec

_AFTER = "CASE WHEN a.retry THEN a.cause ELSE '' END AS after"
_DUE = """
    FROM trial t LEFT JOIN trial_attempt a
        ON a.trial = t.id AND a.attempt = (SELECT max(attempt) FROM trial_attempt WHERE trial = t.id)
    WHERE (a.attempt IS NULL OR (a.state NOT IN ('LAUNCHING', 'RUNNING') AND (a.retry OR a.attempt <= t.resubmitted)))
"""
# A condition on a row of `trial`: it has a result, and no other one was asked for.
STANDS = """EXISTS (
    SELECT 1 FROM trial_attempt a WHERE a.trial = trial.id AND a.state IN ('SUCCEEDED', 'STOPPED')
      AND a.attempt > trial.resubmitted AND a.attempt = (SELECT max(attempt) FROM trial_attempt WHERE trial = trial.id))
"""
# What the latest plan says of trials whose result was made with something else, for `rerun`. It is known to the
# connection that wrote the plan.
_PLANNED = "CREATE TEMP TABLE IF NOT EXISTS planned_otherwise (trial INTEGER PRIMARY KEY, seed INTEGER, config TEXT)"
FORGET_PLANNED = "DELETE FROM planned_otherwise"
_RESEEDED = "EXISTS (SELECT 1 FROM planned_otherwise p WHERE p.trial = t.id AND p.seed <> t.seed)"
_RENEW = (
    """
    UPDATE trial SET (seed, config) = (
        SELECT p.seed, coalesce(p.config, trial.config) FROM planned_otherwise p WHERE p.trial = trial.id)
    WHERE id IN (SELECT trial FROM planned_otherwise) AND NOT """
    + STANDS
)


class Trials:
    """Every method takes part in the manifest's `transaction` around it."""

    def __init__(self, connection: db.Connection) -> None:
        self._db = connection
        connection.execute(_PLANNED)

    def due(self, plan: int, after: int, limit: int) -> list[Due]:
        """Trials of the plan that wait for an attempt, in order, after the position `after`."""
        found = self._db.execute(
            f"SELECT t.*, {_AFTER} {_DUE} AND t.plan = ? AND t.position > ? ORDER BY t.position LIMIT ?",
            (plan, after, limit),
        )
        return [_due(row) for row in found]

    def due_one(self, trial_id: str) -> Due | None:
        """This trial, if it waits for an attempt."""
        row = self._db.execute(f"SELECT t.*, {_AFTER} {_DUE} AND t.trial_id = ?", (trial_id,)).fetchone()
        return _due(row) if row else None

    def waiting_resources(self, plan: int, limit: int | None, others: Sequence[str] = ()) -> list[Resources]:
        """The distinct resources that the waiting trials of the plan, and the trials `others`, ask for."""
        found = self._db.execute(
            f"""SELECT DISTINCT t.resources {_DUE} AND (
                    t.plan = ? AND t.position < ? OR t.trial_id IN (SELECT value FROM json_each(?)))""",
            (plan, 2**62 if limit is None else limit, exact_json.dumps(list(others))),
        )
        return [Resources(**json.loads(row["resources"])) for row in found]

    def any_succeeded(self, plan: int) -> bool:
        """Whether any trial of the plan has ever succeeded."""
        query = """SELECT EXISTS (SELECT 1 FROM trial_attempt a JOIN trial t ON t.id = a.trial
                   WHERE t.plan = ? AND a.state IN ('SUCCEEDED', 'STOPPED'))"""
        return bool(self._db.execute(query, (plan,)).fetchone()[0])

    def any_reported(self, plan: int, metric: str) -> bool:
        """Whether any trial of the plan has ever reported this metric."""
        query = f"""SELECT EXISTS (SELECT 1 FROM trial_attempt a JOIN trial t ON t.id = a.trial
                    WHERE t.plan = ? AND json_type(a.last, {json_path(metric)}) IS NOT NULL)"""
        return bool(self._db.execute(query, (plan,)).fetchone()[0])

    def several_options(self, plan: int) -> set[str]:
        """Keys for which the plan's trials have different strings: these may be choices of a group."""
        query = """SELECT e.key FROM trial t, json_each(t.overrides) e
                   WHERE t.plan = ? AND e.type IN ('text', 'null')
                   GROUP BY e.key HAVING count(DISTINCT coalesce(e.value, 0)) > 1"""
        return {row[0] for row in self._db.execute(query, (plan,))}

    def resubmit(self, trial_ids: Iterable[str]) -> list[str]:
        """Ask for a further attempt of ended trials. Returns those that get one: trials of another trainer do not."""
        done = []
        for trial_id in trial_ids:
            cursor = self._db.execute(
                """UPDATE trial SET resubmitted = (SELECT max(attempt) FROM trial_attempt WHERE trial = trial.id)
                   WHERE trial_id = ? AND EXISTS (SELECT 1 FROM trial_attempt WHERE trial = trial.id)
                     AND NOT EXISTS (
                         SELECT 1 FROM trial_attempt WHERE trial = trial.id AND state IN ('LAUNCHING', 'RUNNING'))
                     AND (SELECT json_extract(spec, '$.trainer') FROM plan WHERE plan = trial.plan)
                       = (SELECT json_extract(spec, '$.trainer') FROM plan ORDER BY plan DESC LIMIT 1)""",
                (trial_id,),
            )
            if cursor.rowcount:
                done.append(trial_id)
        return done

    def spec(self, trial_id: str) -> TrialSpec | None:
        """A trial as its next attempt would run it; None if there is no such trial."""
        row = self._db.execute("SELECT * FROM trial WHERE trial_id = ?", (trial_id,)).fetchone()
        return TrialSpec.from_row(row) if row else None

    def change(self, spec: SweepSpec, trials: Iterable[TrialSpec]) -> None:
        """Change settings of the current plan, and resources and ignored values of trials, for later attempts."""
        self._db.execute("UPDATE plan SET spec = ? WHERE plan = (SELECT max(plan) FROM plan)", (spec.to_json(),))
        for trial in trials:
            self._db.execute(
                "UPDATE trial SET resources = ?, config = ? WHERE trial_id = ?",
                (exact_json.dumps(asdict(trial.resources)), exact_json.config_text(trial.config), trial.trial_id),
            )

    def rerun(self, plan: int, which: str) -> None:
        """Ask for a further attempt of the plan's trials that are `stale`, `failed`, or of `all` that ended."""
        condition = {
            "stale": f"a.state = 'SUCCEEDED' AND ({STALE} OR {_RESEEDED})",
            "failed": "a.state IN ('FAILED', 'LOST') AND NOT a.retry",
            "all": "a.state NOT IN ('LAUNCHING', 'RUNNING')",
        }[which]
        self._db.execute(
            f"""UPDATE trial SET resubmitted = (SELECT max(attempt) FROM trial_attempt WHERE trial = trial.id)
                WHERE id IN (
                    SELECT t.id FROM trial t JOIN trial_attempt a ON a.trial = t.id
                    WHERE t.plan = ? AND a.attempt = (SELECT max(attempt) FROM trial_attempt WHERE trial = t.id)
                      AND {condition})""",
            (plan,),
        )
        self._db.execute(_RENEW)

    def reseeded(self, plan: int) -> int:
        """How many trials of the plan, which was just written, have a result that was made with another seed."""
        return int(
            self._db.execute(f"SELECT count(*) FROM trial t WHERE t.plan = ? AND {_RESEEDED}", (plan,)).fetchone()[0]
        )

    def resume_cancelled(self, plan: int) -> None:
        """Ask for a further attempt of the trials that the user interrupted: the sweep is being run again."""
        self._db.execute(
            """UPDATE trial SET resubmitted = (SELECT max(attempt) FROM trial_attempt WHERE trial = trial.id)
               WHERE plan = ? AND id IN (
                   SELECT a.trial FROM trial_attempt a WHERE a.state = 'CANCELLED'
                     AND a.attempt = (SELECT max(attempt) FROM trial_attempt WHERE trial = a.trial))""",
            (plan,),
        )


def _due(row: db.Row) -> Due:
    return Due(row["id"], row["position"], TrialSpec.from_row(row), row["after"])
