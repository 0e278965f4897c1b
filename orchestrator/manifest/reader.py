"""Reading a manifest, while a coordinator writes it or later: each call is a short transaction, and none writes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

from orchestrator.decide.failures import Failed
from orchestrator.errors import AmbiguousError, NotFoundError
from orchestrator.folder.code_changes import CodeFiles, changed
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest import db, migrate
from orchestrator.manifest.query import ALL, Query, json_path
from orchestrator.manifest.stale import LAST_USED, ONE_CODE, STALE, STALE_CODE, compare_with_today, install, show_stale
from orchestrator.model import exact_json
from orchestrator.model.rows import AttemptRow, PlanRow, ReportRow, TrialRow
from orchestrator.model.sweep import State, TrialSpec

PLAN = "SELECT * FROM plan ORDER BY plan DESC LIMIT 1"
ATTEMPT = "SELECT t.trial_id, a.* FROM attempt a JOIN trial t ON t.id = a.trial"
_CURRENT = "t.plan = (SELECT max(plan) FROM plan)"
# The last attempt of each trial. It reads the table once, in its own order, which is fast for 100,000 trials.
_LAST = """(
    SELECT trial, max(attempt) AS attempt, state, retry, objective, started, ended, code, plan, changed, restored,
           parent_trial, parent_attempt
    FROM trial_attempt GROUP BY trial
) a CROSS JOIN trial t ON t.id = a.trial"""
_PROGRESS = f"""
    SELECT a.state, count(*) AS trials, avg(a.ended - a.started) AS seconds, {{}} AS stale
    FROM {_LAST} WHERE {_CURRENT} AND NOT a.retry AND a.attempt > t.resubmitted GROUP BY a.state
"""
_COUNT_STALE = f"total(CASE WHEN a.state = 'SUCCEEDED' THEN {STALE} END)"


@dataclass(frozen=True)
class PlanProgress:
    """How far the trials of the current plan are."""

    counts: Mapping[State, int]  # only states that occur
    stale: int  # trials whose results were made with code that has changed since
    seconds: float | None  # mean duration of the trials that succeeded


class TrialStatus(NamedTuple):
    """How a trial stands."""

    trial_id: str
    state: State
    stale: bool
    seed: int  # of its result, if it has one
    current: bool  # the current plan has it


class Reader:
    """A manifest open for reading."""

    def __init__(self, folder: SweepFolder) -> None:
        """Raises ManifestError if the manifest is missing or cannot be read."""
        self.folder = folder
        self._db = migrate.connect_reader(folder.manifest)
        with self._errors():
            self._copies = install(self._db, folder)
            show_stale(self._db)
            row = self._db.execute("SELECT uid, name, created FROM sweep").fetchone()
        self.uid: str = row["uid"] if row else ""
        self.name: str = row["name"] if row else folder.name

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def plan(self) -> PlanRow | None:
        """The current plan; None while the first one is being written."""
        with self._errors():
            row = self._db.execute(PLAN).fetchone()
            return PlanRow.from_row(row) if row else None

    def plan_of(self, attempt: AttemptRow) -> PlanRow | None:
        """The plan that an attempt was opened for."""
        with self._errors():
            row = self._db.execute("SELECT * FROM plan WHERE plan = ?", (attempt.plan,)).fetchone()
            return PlanRow.from_row(row) if row else None

    def progress(self) -> PlanProgress:
        """Counts of the current plan, in one pass over its attempts."""
        with self._errors():
            one_code = self._db.execute(ONE_CODE).fetchone()[0]  # then nothing is stale, and no trial is looked at
            query = _PROGRESS.format("0" if one_code else _COUNT_STALE)
            found = {State(row["state"]): row for row in self._db.execute(query)}
            total: int = self._db.execute(f"SELECT count(*) FROM trial t WHERE {_CURRENT}").fetchone()[0]
        counts = {state: row["trials"] for state, row in found.items()}
        waiting = total - sum(counts.values())
        if waiting:
            counts[State.PENDING] = waiting
        done = found.get(State.SUCCEEDED)
        return PlanProgress(counts, int(done["stale"]), done["seconds"]) if done else PlanProgress(counts, 0, None)

    def counts(self) -> Mapping[State, int]:
        """Trials of the current plan by state."""
        return self.progress().counts

    def candidates(self, query: Query = ALL, columns: str = "") -> list[tuple[Any, ...]]:
        """What `decide.ranking` takes of each trial: id, config id, state, objective; then these columns."""
        asked = f"trial_id, config_id, {query.shown.state}, {query.shown.objective} AS value"
        return self.listed(", ".join(filter(None, [asked, columns])), query)

    def compare_with_today(self, today: CodeFiles, code: str) -> None:
        """From now on, what is stale is judged by the project's code as it is, not as the latest plan has it.

        `code`: the hash of its source files.
        """
        with self._errors():
            compare_with_today(self._db, self._copies, today, code)

    def specs(self, limit: int) -> list[TrialSpec]:
        """The first trials of the current plan, as their next attempts would run them."""
        with self._errors():
            found = self._db.execute(f"SELECT * FROM trial t WHERE {_CURRENT} ORDER BY position LIMIT ?", (limit,))
            return [TrialSpec.from_row(row) for row in found]

    def statuses(self) -> list[TrialStatus]:
        """How every trial of every plan stands."""
        with self._errors():
            found = self._db.execute("SELECT trial_id, state, stale, seed, current FROM trials")
            return [TrialStatus(row[0], State(row[1]), bool(row[2]), row[3], bool(row[4])) for row in found]

    def used(self, trial_ids: Iterable[str]) -> Collection[str] | None:
        """The files that these trials used; None if one has not succeeded, or that is not known of one."""
        found: set[str] = set()
        with self._errors():
            for trial_id in trial_ids:
                row = self._db.execute(LAST_USED, (trial_id,)).fetchone()
                names = self._copies.used(row[0]) if row else None
                if names is None:
                    return None
                found.update(names)
        return found

    def stale_code(self, today: CodeFiles) -> dict[str, CodeFiles]:
        """The files whose change has made results stale, each with the latest copy in which it differs from today."""
        differing: dict[str, CodeFiles] = {}
        with self._errors():
            for tree, used in self._db.execute(STALE_CODE).fetchall():
                files = self._copies.files(tree or "")
                if files is not None:
                    for name in changed(files, today, self._copies.used(used)):
                        differing.setdefault(name, files)
        return dict(sorted(differing.items()))

    def trial(self, prefix: str) -> TrialRow:
        """The trial whose id begins with `prefix`. Raises NotFoundError, AmbiguousError."""
        with self._errors():
            found = self._db.execute(
                "SELECT trial_id FROM trial WHERE trial_id LIKE ? ESCAPE '\\' ORDER BY trial_id LIMIT 6",
                (prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%",),
            ).fetchall()
            if len(found) == 1:
                row = self._db.execute("SELECT * FROM trials WHERE trial_id = ?", (found[0][0],)).fetchone()
                return TrialRow.from_row(row)
        if not found:
            raise NotFoundError(
                f"no trial begins with {prefix!r}",
                where=self.name,
                fix=f"orchestrate trials {self.folder.argument} lists them",
            )
        names = ", ".join(row[0] for row in found[:5]) + (", …" if len(found) > 5 else "")
        raise AmbiguousError(f"several trials begin with {prefix!r}: {names}", where=self.name, fix="give more digits")

    def ids(self, prefix: str, most: int) -> list[str]:
        """Ids that begin so, of the current plan first."""
        query = "SELECT trial_id FROM trial WHERE substr(trial_id, 1, ?) = ? ORDER BY plan DESC, position LIMIT ?"
        with self._errors():
            return [row[0] for row in self._db.execute(query, (len(prefix), prefix, most))]

    def trials(self, query: Query = ALL) -> Iterator[TrialRow]:
        """The trials that a query selects."""
        with self._errors():
            rows = self._db.execute(*query.select("*")).fetchall()
        yield from map(TrialRow.from_row, rows)

    def listed(self, columns: str, query: Query) -> list[tuple[Any, ...]]:
        """Columns of the view `trials`, with JSON as text: for commands that show many trials."""
        with self._errors():
            cursor = self._db.cursor()
            cursor.row_factory = None  # plain tuples are read faster
            return cursor.execute(*query.select(columns)).fetchall()

    def count(self, query: Query) -> int:
        """How many trials a query selects without its limit."""
        with self._errors():
            return int(self._db.execute(*query.count()).fetchone()[0])

    def attempts(self, trial_id: str) -> list[AttemptRow]:
        """All attempts at a trial, first to last."""
        with self._errors():
            found = self._db.execute(
                f"{ATTEMPT} WHERE t.trial_id = ? AND a.purpose = 'trial' ORDER BY a.attempt", (trial_id,)
            )
            return [AttemptRow.from_row(row) for row in found]

    def running(self) -> list[AttemptRow]:
        """Open attempts, oldest first."""
        with self._errors():
            query = f"{ATTEMPT} WHERE a.purpose = 'trial' AND a.state IN ('LAUNCHING', 'RUNNING') ORDER BY a.created"
            return [AttemptRow.from_row(row) for row in self._db.execute(query)]

    def steps_done(self, trial_id: str, attempt: int) -> int:
        """How many steps of the training an attempt has behind it, counted from 1 whatever number its first one has."""
        query = """SELECT (SELECT step FROM report WHERE trial = t.id ORDER BY attempt, step LIMIT 1) AS first,
                          coalesce((SELECT max(step) FROM report WHERE trial = t.id AND attempt = a.attempt),
                                   a.restored) AS last
                   FROM trial t JOIN attempt a ON a.trial = t.id WHERE t.trial_id = ? AND a.attempt = ?"""
        with self._errors():
            row = self._db.execute(query, (trial_id, attempt)).fetchone()
        if row is None or row["last"] is None:
            return 0
        return int(row["last"]) + (1 if row["first"] == 0 else 0)

    def last_started(self) -> str | None:
        """The id of the trial that started last; None if none has started."""
        query = """SELECT t.trial_id FROM trial_attempt a JOIN trial t ON t.id = a.trial WHERE a.started IS NOT NULL
                   ORDER BY a.started DESC, a.changed DESC LIMIT 1"""
        with self._errors():
            row = self._db.execute(query).fetchone()
        return row["trial_id"] if row else None

    def metric_names(self, everything: bool = True) -> list[str]:
        """The names of all metrics that trials have reported; of those of the current plan, or of all plans."""
        plans = "1" if everything else _CURRENT
        with self._errors():
            query = f"""SELECT DISTINCT e.key FROM trial_attempt a CROSS JOIN trial t ON t.id = a.trial,
                        json_each(a.last) e WHERE {plans}"""
            return [row[0] for row in self._db.execute(query)]

    def setting_names(self, everything: bool = True) -> list[str]:
        """The keys of all settings that vary in the current plan, or in any plan."""
        plans = "1" if everything else _CURRENT
        with self._errors():
            query = f"SELECT DISTINCT e.key FROM trial t, json_each(t.overrides) e WHERE {plans}"
            return [row[0] for row in self._db.execute(query)]

    def has_setting(self, key: str) -> bool:
        """Whether a trial's config has this dotted key, or a trial has chosen an option of this group."""
        group, path = json_path(key), json_path(*key.split("."))
        with self._errors():
            query = f"""SELECT EXISTS (SELECT 1 FROM trial WHERE json_type(config, {path}) IS NOT NULL
                                       OR json_type(choices, {group}) IS NOT NULL)"""
            return bool(self._db.execute(query).fetchone()[0])

    def example(self) -> TrialRow | None:
        """Some trial of the latest plan."""
        with self._errors():
            row = self._db.execute("SELECT * FROM trials ORDER BY current DESC LIMIT 1").fetchone()
            return TrialRow.from_row(row) if row else None

    def failed(self) -> list[Failed]:
        """The failed and lost trials of the current plan."""
        with self._errors():
            query = f"""SELECT t.trial_id, a.cause, a.message, a.place
                        FROM trial_attempt a CROSS JOIN trial t ON t.id = a.trial
                        WHERE a.state IN ('FAILED', 'LOST') AND NOT a.retry AND a.attempt > t.resubmitted
                          AND {_CURRENT} AND a.attempt = (SELECT max(attempt) FROM trial_attempt WHERE trial = t.id)"""
            return [Failed(*row) for row in self._db.execute(query)]

    def series(self, trial_id: str) -> dict[int, dict[str, float]]:
        """The effective series, by growing step: rows of one step are merged by key."""
        with self._errors():
            query = "SELECT step, metrics FROM reports WHERE trial_id = ? ORDER BY id"
            steps: dict[int, dict[str, float]] = {}
            for row in self._db.execute(query, (trial_id,)):
                steps.setdefault(row["step"], {}).update(exact_json.metrics(row["metrics"]))
            return dict(sorted(steps.items()))

    def notices(self, trial_id: str, attempt: int | None = None) -> list[str]:
        """What the user should see of a trial, or of one attempt at it."""
        with self._errors():
            query = """SELECT text FROM notice n JOIN trial t ON t.id = n.trial
                       WHERE t.trial_id = ?1 AND (?2 IS NULL OR n.attempt = ?2) ORDER BY n.id"""
            return [row["text"] for row in self._db.execute(query, (trial_id, attempt))]

    # ------------------------------------------------------------ for followers

    def changed_attempts(self, after: int, limit: int = 1000) -> list[AttemptRow]:
        """Attempts that changed after this cursor, in the order of their last change."""
        with self._errors():
            query = f"{ATTEMPT} WHERE a.purpose = 'trial' AND a.changed > ? ORDER BY a.changed LIMIT ?"
            return [AttemptRow.from_row(row) for row in self._db.execute(query, (after, limit))]

    def reports(self, after: int, limit: int = 10_000) -> list[ReportRow]:
        """Reported rows of all trials after this cursor, in the order they were recorded."""
        with self._errors():
            query = """SELECT r.id, t.trial_id, r.attempt, r.step, r.time, r.metrics
                       FROM report r JOIN trial t ON t.id = r.trial
                       JOIN trial_attempt a ON a.trial = r.trial AND a.attempt = r.attempt
                       WHERE r.id > ? ORDER BY r.id LIMIT ?"""
            return [ReportRow.from_row(row) for row in self._db.execute(query, (after, limit))]

    def lineage_reports(self, trial_id: str, lineage: int, after: int = 0) -> list[ReportRow]:
        """Rows of the effective series of one lineage after this cursor, by step, then in order of arrival."""
        with self._errors():
            query = """SELECT r.id, t.trial_id, r.attempt, r.step, r.time, r.metrics
                       FROM trial t JOIN trial_attempt a ON a.trial = t.id
                       JOIN report r ON r.trial = a.trial AND r.attempt = a.attempt
                       WHERE t.trial_id = ? AND a.lineage = ? AND r.id > ? AND NOT EXISTS (
                           SELECT 1 FROM trial_attempt later
                           WHERE later.trial = a.trial AND later.attempt > a.attempt AND later.lineage = a.lineage
                             AND later.restored IS NOT NULL AND later.restored < r.step)
                       ORDER BY r.step, r.id"""
            return [ReportRow.from_row(row) for row in self._db.execute(query, (trial_id, lineage, after))]

    def last_report(self) -> int:
        """The id of the newest report; 0 if there is none."""
        with self._errors():
            return int(self._db.execute("SELECT coalesce(max(id), 0) FROM report").fetchone()[0])

    def exactly(self, trial_id: str) -> TrialRow:
        """The trial of this id, which must exist."""
        with self._errors():
            return TrialRow.from_row(
                self._db.execute("SELECT * FROM trials WHERE trial_id = ?", (trial_id,)).fetchone()
            )

    def snapshot(self) -> AbstractContextManager[None]:
        """Several reads of one state. Keep it short: the write-ahead log cannot shrink meanwhile."""
        return db.snapshot(self._db)

    def _errors(self) -> AbstractContextManager[None]:
        return db.errors(self.folder.manifest)
