"""The one writer of a manifest: the coordinator's side, under the sweep's lock."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest import db, plans, rows
from orchestrator.manifest.query import json_path
from orchestrator.manifest.reader import ATTEMPT, PLAN
from orchestrator.model.events import Outcome, Started
from orchestrator.model.order import Checkpoint
from orchestrator.model.rows import AttemptRow, Due, PlanRow
from orchestrator.model.sweep import Objective, Resources, State, SweepSpec, TrialSpec

_AFTER = "CASE WHEN a.retry THEN a.cause ELSE '' END AS after"
_DUE = """
    FROM trial t LEFT JOIN attempt a
        ON a.trial = t.id AND a.attempt = (SELECT max(attempt) FROM attempt WHERE trial = t.id)
    WHERE (a.attempt IS NULL OR (a.state NOT IN ('LAUNCHING', 'RUNNING') AND (a.retry OR a.attempt <= t.resubmitted)))
"""


class Manifest:
    """Open for writing. Every method takes part in the `transaction` around it."""

    def __init__(self, folder: SweepFolder, connection: db.Connection) -> None:
        self.folder, self._db = folder, connection
        row = connection.execute("SELECT uid, name FROM sweep").fetchone()
        self.uid: str = row["uid"]
        self.name: str = row["name"]
        self._changed: int = connection.execute("SELECT coalesce(max(changed), 0) FROM attempt").fetchone()[0]

    @classmethod
    def open(cls, folder: SweepFolder) -> Manifest:
        """Open or create; one that holds a plan is backed up. The caller holds the lock. Raises ManifestError."""
        with db.errors(folder.manifest):
            connection = db.connect_writer(folder.manifest)
            try:
                if connection.execute("SELECT count(*) FROM sweep").fetchone()[0] == 0:
                    values = (secrets.token_hex(8), folder.name, time.time())
                    connection.execute("INSERT INTO sweep (uid, name, created) VALUES (?, ?, ?)", values)
                elif connection.execute("SELECT EXISTS (SELECT 1 FROM plan)").fetchone()[0]:
                    db.back_up(connection, folder.manifest)
                manifest = cls(folder, connection)
                folder.uid.write_text(manifest.uid, encoding="utf-8")
                return manifest
            except BaseException:
                connection.close()
                raise

    def close(self) -> None:
        db.close_writer(self._db)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is durable when it ends, or none of it. Raises ManifestError."""
        with db.errors(self.folder.manifest), db.transaction(self._db):
            yield

    # ------------------------------------------------------------ the plan

    def begin_plan(
        self,
        spec: SweepSpec,
        file: str,
        argv: Sequence[str],
        provenance: Mapping[str, Any],
        code: str,
        cwd: str,
    ) -> int:
        """Open a plan: from now on it is the current one."""
        cursor = self._db.execute(
            "INSERT INTO plan (created, file, argv, spec, provenance, code, cwd) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                time.time(),
                file,
                rows.dumps(list(argv)),
                rows.spec_text(spec),
                rows.dumps(dict(provenance)),
                code,
                cwd,
            ),
        )
        return int(cursor.lastrowid or 0)

    def add_trials(self, plan: int, specs: Iterable[TrialSpec]) -> int:
        """Insert, or move into this plan, each trial; how many there were."""
        return plans.add_trials(self._db, plan, specs)

    def finish_plan(self, plan: int, total: int, excluded: int, duplicates: int) -> None:
        self._db.execute(
            "UPDATE plan SET total = ?, excluded = ?, duplicates = ? WHERE plan = ?",
            (total, excluded, duplicates, plan),
        )

    def judge(self, plan: int, objective: Objective | None) -> None:
        """Read the objective of the plan's trials anew, if an earlier plan had another one."""
        asked = "SELECT count(DISTINCT coalesce(json_extract(spec, '$.objective'), '')) FROM plan"
        if self._db.execute(asked).fetchone()[0] < 2:
            return
        value = "NULL" if objective is None else _number("last", objective.metric)
        if objective is not None and objective.at == "best":
            value = f"""(SELECT {objective.mode}({_number("r.metrics", objective.metric)})
                FROM reports r JOIN trial t ON t.trial_id = r.trial_id WHERE t.id = attempt.trial)"""
        self._db.execute(
            f"""UPDATE attempt SET objective = {value}
                WHERE trial IN (SELECT id FROM trial WHERE plan = ?)
                  AND attempt = (SELECT max(attempt) FROM attempt a WHERE a.trial = attempt.trial)""",
            (plan,),
        )

    def end_run(self, plan: int, now: float) -> None:
        self._db.execute("UPDATE plan SET ended = ? WHERE plan = ?", (now, plan))

    def current_plan(self) -> PlanRow | None:
        row = self._db.execute(PLAN).fetchone()
        return rows.plan(row) if row else None

    # ------------------------------------------------------------ what is to run

    def due(self, plan: int, after: int, limit: int) -> list[Due]:
        """Trials of the plan that wait for an attempt, in order, behind position `after`."""
        found = self._db.execute(
            f"SELECT t.*, {_AFTER} {_DUE} AND t.plan = ? AND t.position > ? ORDER BY t.position LIMIT ?",
            (plan, after, limit),
        )
        return [_due(row) for row in found]

    def waiting_resources(self, plan: int, limit: int | None, others: Sequence[str] = ()) -> list[Resources]:
        """What the waiting trials of the plan (and those others) ask for, each size once."""
        found = self._db.execute(
            f"""SELECT DISTINCT t.resources {_DUE} AND (
                    t.plan = ? AND t.position < ? OR t.trial_id IN (SELECT value FROM json_each(?)))""",
            (plan, 2**62 if limit is None else limit, rows.dumps(list(others))),
        )
        return [Resources(**json.loads(row["resources"])) for row in found]

    def succeeded(self, plan: int) -> bool:
        """Whether a trial of the plan has ever succeeded."""
        query = """SELECT EXISTS (SELECT 1 FROM attempt a JOIN trial t ON t.id = a.trial
                   WHERE t.plan = ? AND a.state IN ('SUCCEEDED', 'STOPPED'))"""
        return bool(self._db.execute(query, (plan,)).fetchone()[0])

    def several_options(self, plan: int) -> set[str]:
        """Keys for which the plan's trials have different texts: what may be choices of a group."""
        query = """SELECT e.key FROM trial t, json_each(t.overrides) e
                   WHERE t.plan = ? AND e.type IN ('text', 'null')
                   GROUP BY e.key HAVING count(DISTINCT coalesce(e.value, 0)) > 1"""
        return {row[0] for row in self._db.execute(query, (plan,))}

    def due_one(self, trial_id: str) -> Due | None:
        """This trial, if it waits for an attempt."""
        row = self._db.execute(f"SELECT t.*, {_AFTER} {_DUE} AND t.trial_id = ?", (trial_id,)).fetchone()
        return _due(row) if row else None

    def resubmit(self, trial_ids: Iterable[str]) -> list[str]:
        """Ask for a further attempt of ended trials; those for which it was. Other trainers' are passed over."""
        done = []
        for trial_id in trial_ids:
            cursor = self._db.execute(
                """UPDATE trial SET resubmitted = (SELECT max(attempt) FROM attempt WHERE trial = trial.id)
                   WHERE trial_id = ? AND EXISTS (SELECT 1 FROM attempt WHERE trial = trial.id)
                     AND NOT EXISTS (SELECT 1 FROM attempt WHERE trial = trial.id AND state IN ('LAUNCHING', 'RUNNING'))
                     AND (SELECT json_extract(spec, '$.trainer') FROM plan WHERE plan = trial.plan)
                       = (SELECT json_extract(spec, '$.trainer') FROM plan ORDER BY plan DESC LIMIT 1)""",
                (trial_id,),
            )
            if cursor.rowcount:
                done.append(trial_id)
        return done

    def trial_spec(self, trial_id: str) -> TrialSpec | None:
        """A trial as it is to run; None if there is no such one."""
        row = self._db.execute("SELECT * FROM trial WHERE trial_id = ?", (trial_id,)).fetchone()
        return rows.trial_spec(row) if row else None

    def change(self, spec: SweepSpec, trials: Iterable[TrialSpec]) -> None:
        """Settings of the current plan, and resources and ignored values of trials, for attempts to come."""
        self._db.execute("UPDATE plan SET spec = ? WHERE plan = (SELECT max(plan) FROM plan)", (rows.spec_text(spec),))
        for trial in trials:
            self._db.execute(
                "UPDATE trial SET resources = ?, config = ? WHERE trial_id = ?",
                (rows.dumps(asdict(trial.resources)), rows.config_text(trial.config), trial.trial_id),
            )

    def rerun(self, plan: int, which: str) -> None:
        """Ask for a further attempt of the plan's trials that are `stale`, `failed`, or of `all` that ended."""
        condition = {
            "stale": "a.state = 'SUCCEEDED' AND a.code <> (SELECT code FROM plan WHERE plan = t.plan)",
            "failed": "a.state IN ('FAILED', 'LOST') AND NOT a.retry",
            "all": "a.state NOT IN ('LAUNCHING', 'RUNNING')",
        }[which]
        self._db.execute(
            f"""UPDATE trial SET resubmitted = (SELECT max(attempt) FROM attempt WHERE trial = trial.id)
                WHERE id IN (
                    SELECT t.id FROM trial t JOIN attempt a ON a.trial = t.id
                    WHERE t.plan = ? AND a.attempt = (SELECT max(attempt) FROM attempt WHERE trial = t.id)
                      AND {condition})""",
            (plan,),
        )

    def resume_cancelled(self, plan: int) -> None:
        """What the user interrupted runs again when he runs the sweep again."""
        self._db.execute(
            """UPDATE trial SET resubmitted = (SELECT max(attempt) FROM attempt WHERE trial = trial.id)
               WHERE plan = ? AND id IN (
                   SELECT a.trial FROM attempt a WHERE a.state = 'CANCELLED'
                     AND a.attempt = (SELECT max(attempt) FROM attempt WHERE trial = a.trial))""",
            (plan,),
        )

    # ------------------------------------------------------------ attempts

    def recover(self, now: float) -> int:
        """Close what a coordinator that died left open: those trials run again, free of charge. How many."""
        found = self._db.execute("SELECT trial, attempt FROM attempt WHERE state IN ('LAUNCHING', 'RUNNING')")
        opened = [(row["trial"], row["attempt"]) for row in found]
        outcome = Outcome(State.LOST, "lost_coordinator", "the coordinator went away", retry=True)
        for key, attempt in opened:
            self.close_attempt(key, attempt, outcome, now, None, None)
        return len(opened)

    def attempts(self, key: int) -> list[AttemptRow]:
        return [
            rows.attempt(row) for row in self._db.execute(f"{ATTEMPT} WHERE a.trial = ? ORDER BY a.attempt", (key,))
        ]

    def attempts_since_asked(self, key: int, before: int) -> list[AttemptRow]:
        """Attempts earlier than `before` and later than the user's last `resubmit`: what budgets count."""
        query = f"{ATTEMPT} WHERE a.trial = ? AND a.attempt < ? AND a.attempt > t.resubmitted ORDER BY a.attempt"
        return [rows.attempt(row) for row in self._db.execute(query, (key, before))]

    def checkpoints(self, key: int, lineage: int) -> list[Checkpoint]:
        """The latest durable states of this series that the manifest knows, newest first."""
        found = self._db.execute(
            """SELECT c.step, c.path FROM checkpoint c
               JOIN attempt a ON a.trial = c.trial AND a.attempt = c.attempt
               WHERE c.trial = ? AND a.lineage = ? AND NOT EXISTS (
                   SELECT 1 FROM attempt later WHERE later.trial = c.trial AND later.attempt > c.attempt
                     AND later.lineage = a.lineage AND later.restored < c.step)
               ORDER BY c.attempt DESC, c.step DESC LIMIT 20""",
            (key, lineage),
        )
        return [Checkpoint(row["step"], row["path"]) for row in found]

    def open_attempt(self, key: int, attempt: int, lineage: int, code: str, now: float) -> None:
        self._db.execute(
            """INSERT INTO attempt (trial, attempt, lineage, state, created, code, changed, last, objective)
               SELECT ?, ?, ?, 'LAUNCHING', ?, ?, ?, coalesce(before.last, '{}'), before.objective
               FROM (SELECT 1) LEFT JOIN attempt before
                   ON before.trial = ? AND before.attempt = ? AND before.lineage = ?""",
            (key, attempt, lineage, now, code, self._tick(), key, attempt - 1, lineage),
        )

    def started(self, key: int, attempt: int, event: Started) -> None:
        self._db.execute(
            """UPDATE attempt SET state = 'RUNNING', started = ?, node = ?, node_id = ?, pid = ?, gpus = ?,
                   gpu_uuids = ?, threads = ?, method = ?, changed = ? WHERE trial = ? AND attempt = ?""",
            (
                event.at,
                event.node,
                event.node_id,
                event.pid,
                rows.dumps(list(event.gpus)),
                rows.dumps(list(event.gpu_uuids)),
                event.threads,
                event.method,
                self._tick(),
                key,
                attempt,
            ),
        )

    def reported(self, key: int, attempt: int, reports: Sequence[tuple[int, float, str]]) -> None:
        self._db.executemany(
            "INSERT INTO report (trial, attempt, step, time, metrics) VALUES (?, ?, ?, ?, ?)",
            ((key, attempt, *report) for report in reports),
        )

    def progressed(self, key: int, attempt: int, seq: int, last: Mapping[str, Any], objective: float | None) -> None:
        self._db.execute(
            "UPDATE attempt SET seq = ?, last = ?, objective = ? WHERE trial = ? AND attempt = ?",
            (seq, rows.dumps(last), objective, key, attempt),
        )

    def saved(self, key: int, attempt: int, checkpoint: Checkpoint, at: float) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO checkpoint (trial, attempt, step, path, saved) VALUES (?, ?, ?, ?, ?)",
            (key, attempt, checkpoint.step, checkpoint.path, at),
        )

    def restored(self, key: int, attempt: int, step: int) -> None:
        self._db.execute(
            "UPDATE attempt SET restored = ?, changed = ? WHERE trial = ? AND attempt = ?",
            (step, self._tick(), key, attempt),
        )

    def series(self, key: int) -> list[str]:
        """The rows of the trial's effective series, as JSON text, in the order of their arrival."""
        query = "SELECT r.metrics FROM reports r JOIN trial t ON t.trial_id = r.trial_id WHERE t.id = ? ORDER BY r.id"
        return [row["metrics"] for row in self._db.execute(query, (key,))]

    def new_lineage(self, key: int, attempt: int) -> None:
        """The attempt was offered a checkpoint and did not take it: its series starts anew."""
        self._db.execute(
            "UPDATE attempt SET lineage = attempt, changed = ? WHERE trial = ? AND attempt = ?",
            (self._tick(), key, attempt),
        )

    def noticed(self, key: int, attempt: int, text: str) -> None:
        self._db.execute("INSERT INTO notice (trial, attempt, text) VALUES (?, ?, ?)", (key, attempt, text))

    def close_attempt(
        self,
        key: int,
        attempt: int,
        outcome: Outcome,
        ended: float,
        entered: float | None,
        returned: float | None,
    ) -> None:
        """The transition that ends an attempt; one that has ended stays as it is."""
        self._db.execute(
            """UPDATE attempt SET state = ?, retry = ?, cause = ?, message = ?, traceback = ?, place = ?, ended = ?,
                   entered = ?, returned = ?, changed = ?
               WHERE trial = ? AND attempt = ? AND state IN ('LAUNCHING', 'RUNNING')""",
            (
                outcome.state.value,
                outcome.retry,
                outcome.cause,
                outcome.message,
                outcome.traceback,
                outcome.place,
                ended,
                entered,
                returned,
                self._tick(),
                key,
                attempt,
            ),
        )

    def _tick(self) -> int:
        self._changed += 1
        return self._changed


def _number(column: str, metric: str) -> str:
    """The value of a metric in a column of JSON, in SQL; NULL where it is not finite."""
    path = json_path(metric)
    return f"CASE WHEN json_type({column}, {path}) IN ('real', 'integer') THEN json_extract({column}, {path}) END"


def _due(row: db.Row) -> Due:
    return Due(row["id"], row["position"], rows.trial_spec(row), row["after"])
