"""Writing attempts: their transitions, what they report and save, and decisions about them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.manifest import db
from orchestrator.manifest.reader import ATTEMPT
from orchestrator.model import exact_json
from orchestrator.model.events import Ended, Outcome, Restored, Started
from orchestrator.model.order import Checkpoint
from orchestrator.model.rows import AttemptRow
from orchestrator.model.sweep import Resources, State

# What an attempt of the same lineage begins with: the metrics that the one before it had reached.
_OPEN = """
    INSERT INTO attempt (trial, attempt, purpose, plan, lineage, state, created, code, resources, ignored,
                         deterministic, changed, last, objective)
    SELECT :trial, :attempt, :purpose, :plan, :lineage, 'LAUNCHING', :created, :code, :resources, :ignored,
           :deterministic, :changed, coalesce(before.last, '{}'), before.objective
    FROM (SELECT 1) LEFT JOIN attempt before
        ON before.trial = :trial AND before.lineage = :lineage AND before.attempt = (
            SELECT max(attempt) FROM attempt WHERE trial = :trial AND purpose = :purpose AND attempt < :attempt)
"""
_START = """
    UPDATE attempt SET state = 'RUNNING', started = ?, node = ?, node_id = ?, pid = ?, gpus = ?, gpu_uuids = ?,
        threads = ?, method = ?, changed = ?
    WHERE trial = ? AND attempt = ?
"""
_CLOSE = """
    UPDATE attempt SET state = ?, retry = ?, cause = ?, message = ?, traceback = ?, place = ?, ended = ?, entered = ?,
        returned = ?, changed = ?
    WHERE trial = ? AND attempt = ? AND state IN ('LAUNCHING', 'RUNNING')
"""
_LAST_ID = """
    SELECT max(coalesce((SELECT max(changed) FROM attempt), 0),
               coalesce((SELECT max(id) FROM report), 0),
               coalesce((SELECT max(id) FROM change), 0))
"""
_CHANGE = "INSERT INTO change (id, trial, attempt, time, event, state, detail) VALUES (?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class Opening:
    """What is known of an attempt when it is opened."""

    key: int  # row of its trial
    attempt: int
    lineage: int  # the attempt that began the series this one continues
    plan: int
    code: str  # hash of the project's files
    at: float  # seconds since the epoch
    resources: Resources  # what it gets
    deterministic: str
    ignored: Mapping[str, Any]  # dotted key -> value, of the keys that are no part of the trial's id
    purpose: str = "trial"


class Attempts:
    """Every method takes part in the manifest's `transaction` around it. `key` is the row of a trial.

    Reports and changes take their ids from one counter, so that together they are the order in which things became
    known.
    """

    def __init__(self, connection: db.Connection) -> None:
        self._db = connection
        self._resources = Resources(), exact_json.dumps(asdict(Resources()))
        self._ids = itertools.count(connection.execute(_LAST_ID).fetchone()[0] + 1)

    # ------------------------------------------------------------ reading

    def of(self, key: int) -> list[AttemptRow]:
        """The attempts at a trial, first to last."""
        query = f"{ATTEMPT} WHERE a.trial = ? AND a.purpose = 'trial' ORDER BY a.attempt"
        return [AttemptRow.from_row(row) for row in self._db.execute(query, (key,))]

    def since_asked(self, key: int, before: int) -> list[AttemptRow]:
        """Attempts earlier than `before` and later than the user's last `resubmit`: what budgets count."""
        query = f"""{ATTEMPT} WHERE a.trial = ? AND a.purpose = 'trial' AND a.attempt < ? AND a.attempt > t.resubmitted
                    ORDER BY a.attempt"""
        return [AttemptRow.from_row(row) for row in self._db.execute(query, (key, before))]

    def next_number(self, key: int) -> int:
        """The number of the next attempt; attempts of every purpose count."""
        query = "SELECT coalesce(max(attempt), 0) + 1 FROM attempt WHERE trial = ?"
        return int(self._db.execute(query, (key,)).fetchone()[0])

    def checkpoints(self, key: int, lineage: int) -> list[Checkpoint]:
        """The latest durable states of this series that the manifest knows, newest first."""
        found = self._db.execute(
            """SELECT c.step, c.path FROM checkpoint c
               JOIN trial_attempt a ON a.trial = c.trial AND a.attempt = c.attempt
               WHERE c.trial = ? AND a.lineage = ? AND NOT EXISTS (
                   SELECT 1 FROM trial_attempt later WHERE later.trial = c.trial AND later.attempt > c.attempt
                     AND later.lineage = a.lineage AND later.restored < c.step)
               ORDER BY c.attempt DESC, c.step DESC LIMIT 20""",
            (key, lineage),
        )
        return [Checkpoint(row["step"], row["path"]) for row in found]

    def series(self, key: int) -> list[str]:
        """The rows of the trial's effective series, as JSON text, in the order of their arrival."""
        query = "SELECT r.metrics FROM reports r JOIN trial t ON t.trial_id = r.trial_id WHERE t.id = ? ORDER BY r.id"
        return [row["metrics"] for row in self._db.execute(query, (key,))]

    # ------------------------------------------------------------ transitions

    def open(self, new: Opening) -> None:
        """Record that an attempt is about to be launched."""
        number = next(self._ids)
        values = {
            "trial": new.key,
            "attempt": new.attempt,
            "purpose": new.purpose,
            "plan": new.plan,
            "lineage": new.lineage,
            "created": new.at,
            "code": new.code,
            "resources": self._text_of(new.resources),
            "ignored": exact_json.config_text(new.ignored),
            "deterministic": new.deterministic,
            "changed": number,
        }
        self._db.execute(_OPEN, values)
        self._log(number, ("opened", State.LAUNCHING), new.at, (new.key, new.attempt))

    def _text_of(self, resources: Resources) -> str:
        """As JSON; mostly the same as for the attempt before."""
        if resources != self._resources[0]:
            self._resources = resources, exact_json.dumps(asdict(resources))
        return self._resources[1]

    def started(self, key: int, attempt: int, event: Started) -> None:
        """Record that the attempt's process exists."""
        number, gpus = next(self._ids), exact_json.dumps(list(event.gpus))
        where = (event.at, event.node, event.node_id, event.pid, gpus, exact_json.dumps(list(event.gpu_uuids)))
        self._db.execute(_START, (*where, event.threads, event.method, number, key, attempt))
        self._log(number, ("started", State.RUNNING), event.at, (key, attempt))

    def restored(self, key: int, attempt: int, event: Restored, lineage: int) -> None:
        """Record the checkpoint that the attempt continues from, and the attempt that had saved it.

        `lineage`: that of the checkpoint. The attempt may have left it by a report before.
        """
        number = next(self._ids)
        self._db.execute(
            """UPDATE attempt SET restored = ?1, changed = ?2, lineage = ?6, parent_trial = trial, parent_step = ?1,
                   parent_attempt = (SELECT max(c.attempt) FROM checkpoint c
                                     WHERE c.trial = ?3 AND c.step = ?1 AND c.path = ?4)
               WHERE trial = ?3 AND attempt = ?5""",
            (event.step, number, key, event.path, attempt, lineage),
        )
        self._log(number, ("restored", State.RUNNING), event.at, (key, attempt), exact_json.dumps({"step": event.step}))

    def new_lineage(self, key: int, attempt: int, at: float) -> None:
        """The attempt was offered a checkpoint and did not take it: its series starts anew."""
        number = next(self._ids)
        self._db.execute(
            "UPDATE attempt SET lineage = attempt, changed = ? WHERE trial = ? AND attempt = ?", (number, key, attempt)
        )
        self._log(number, ("new_lineage", State.RUNNING), at, (key, attempt))

    def close(self, key: int, attempt: int, outcome: Outcome, end: Ended, used: str = "") -> None:
        """Record the end of an attempt, and what it means; an attempt that has ended stays as it is.

        `used`: the file in the sweep's folder that says which files of the project it used; "" if that is not known.
        """
        number = next(self._ids)
        told = (outcome.state.value, outcome.retry, outcome.cause, outcome.message, outcome.traceback, outcome.place)
        times = (end.at, end.entered, end.left)
        if self._db.execute(_CLOSE, (*told, *times, number, key, attempt)).rowcount:
            facts = {"cause": outcome.cause, "retry": outcome.retry}
            detail = exact_json.dumps({**facts, "used": used} if used else facts)
            self._log(number, ("ended", outcome.state), end.at, (key, attempt), detail)

    def recover(self, now: float) -> int:
        """Close what a coordinator that died left open, whatever its purpose; those trials run again, free of charge.

        Returns how many there were.
        """
        found = self._db.execute("SELECT trial, attempt FROM attempt WHERE state IN ('LAUNCHING', 'RUNNING')")
        opened = [(row["trial"], row["attempt"]) for row in found]
        outcome = Outcome(State.LOST, "lost_coordinator", "the coordinator went away", retry=True)
        for key, attempt in opened:
            self.close(key, attempt, outcome, Ended(now))
        return len(opened)

    def _log(self, number: int, what: tuple[str, State], at: float, where: tuple[int, int], detail: str = "{}") -> None:
        """`what`: the event, and the state from then on. `where`: the row of the trial, and the attempt."""
        self._db.execute(_CHANGE, (number, *where, at, what[0], what[1].value, detail))

    # ------------------------------------------------------------ what an attempt tells

    def reported(self, key: int, attempt: int, reports: Sequence[tuple[int, float, str]]) -> None:
        """Rows of `run.report`: (step, seconds since the epoch, metrics as JSON text)."""
        ids = self._ids
        self._db.executemany(
            "INSERT INTO report (id, trial, attempt, step, time, metrics) VALUES (?, ?, ?, ?, ?, ?)",
            [(next(ids), key, attempt, *report) for report in reports],
        )

    def progressed(self, key: int, attempt: int, last: Mapping[str, Any], objective: float | None) -> None:
        """The last value of each metric, and the objective, so far."""
        self._db.execute(
            "UPDATE attempt SET last = ?, objective = ? WHERE trial = ? AND attempt = ?",
            (exact_json.dumps(last), objective, key, attempt),
        )

    def saved(self, key: int, attempt: int, checkpoint: Checkpoint, at: float) -> None:
        """A checkpoint is durable."""
        self._db.execute(
            "INSERT OR REPLACE INTO checkpoint (trial, attempt, step, path, saved) VALUES (?, ?, ?, ?, ?)",
            (key, attempt, checkpoint.step, checkpoint.path, at),
        )

    def noticed(self, key: int, attempt: int, text: str) -> None:
        """One line that the user should see."""
        self._db.execute("INSERT INTO notice (trial, attempt, text) VALUES (?, ?, ?)", (key, attempt, text))

    def decided(self, kind: str, payload: Mapping[str, Any], at: float, key: int | None = None) -> None:
        """Record a decision, and how much was known when it was taken."""
        self._db.execute(
            """INSERT INTO decision (time, kind, trial, payload, last_report, last_change)
               SELECT ?, ?, ?, ?,
                      coalesce((SELECT max(id) FROM report), 0), coalesce((SELECT max(id) FROM change), 0)""",
            (at, kind, key, exact_json.dumps(payload)),
        )
