"""Follows a manifest and brings a tracker to what it says: opens, feeds and finishes runs, each step once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from orchestrator import naming
from orchestrator.errors import RefusedError, TrackingError
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.reader import Reader
from orchestrator.model.rows import ReportRow
from orchestrator.ports import SUPERSEDED, TrackedRun, Tracker
from orchestrator.tracking.goals import Goal, Steps, goals, run_id
from orchestrator.tracking.ledger import OPENED, Ledger

_LIVE = 512  # runs open at once; a run may cost a tracker a few MB
_BACKLOG = 1000  # runs that are over and wait; further ones stay in the manifest
_TRIES = 3  # of a run that is refused
_OPENING, _FINISHING = 4, 16  # at once; both may wait for a network


@dataclass
class Job:
    """One run that is not yet wholly delivered."""

    goal: Goal
    run_id: str
    stage: Literal["waiting", "opening", "open", "finishing"] = "waiting"
    steps: Steps = field(default_factory=lambda: Steps(0))
    seen: int = 0  # last row given to `steps`
    resumed: int = 0  # last attempt known to have gone on from a checkpoint
    opening: Future[int] | None = None
    finishing: Future[None] | None = None
    closing: str = ""  # the version that is being finished
    refusals: int = 0
    not_before: float = 0.0


class Follower:
    """One pass over everything new is a `tick`. `held`: a coordinator lives and may add more."""

    def __init__(
        self, folder: SweepFolder, ledger: Ledger, tracker: Tracker, *, live: bool, again: Iterable[str] = ()
    ) -> None:
        """`live`: runs are shown while they go on; otherwise each is sent once it is over.

        `again`: trials to look at although nothing about them has changed.
        """
        self._again = list(again)
        self._folder, self._ledger, self._tracker, self._live = folder, ledger, tracker, live
        self._jobs: dict[tuple[str, int], Job] = {}
        self._of_attempt: dict[tuple[str, int], Job] = {}
        self._held = True
        self._changed = self._saved = ledger.cursor
        self._row: int | None = None
        self._address: str | None = None
        self._openers, self._finishers = ThreadPoolExecutor(_OPENING), ThreadPoolExecutor(_FINISHING)
        self._not_before = 0.0
        self.more = False  # the manifest has more, which can be read now
        self.failures = 0  # of the tracker, in a row
        self.trouble: TrackingError | None = None  # the last of them
        self.sent = 0  # runs wholly delivered
        self.refused = 0  # runs that the tracker does not take
        self._oldest_refused: int | None = None

    def tick(self, held: bool) -> bool:
        """Whether nothing is left to be done now."""
        # Opened anew each time: at its clean end a coordinator can put the file in order only if nobody has it open.
        with Reader(self._folder) as self._reader:
            if self._row is None:
                self._row = self._reader.last_report()  # what is older is read when its run is opened
            while self._again:
                self._look_at(self._again.pop())
            if held != self._held:
                self._held = held
                for trial_id in {job.goal.trial_id for job in self._jobs.values()}:
                    self._look_at(trial_id)
            full = self.left > _BACKLOG  # the rest stays in the manifest until runs have been delivered
            self.more = not full and self._read(self._row)
            room = self._room()
            for job in list(self._jobs.values()):
                room -= self._advance(job, room > 0)
        self._keep_cursor()
        return not (full or self.more or self._jobs)

    @property
    def left(self) -> int:
        """Runs that are over and not yet delivered, as far as they are known."""
        return sum(job.goal.over for job in self._jobs.values())

    # ------------------------------------------------------------ what the manifest says

    def _read(self, row: int) -> bool:
        """Read changed attempts, then rows, so that a row always finds its attempt known. Whether there is more."""
        with self._reader.snapshot():
            changed = self._reader.changed_attempts(self._changed)
            rows = self._reader.reports(row)
        if changed:
            self._changed = changed[-1].changed
            for trial_id in dict.fromkeys(attempt.trial_id for attempt in changed):
                self._look_at(trial_id)
            return True  # rows only when no change is left to be read
        for new in rows:
            self._row = new.id
            job = self._of_attempt.get((new.trial_id, new.attempt))
            if job and job.stage == "open":
                self._feed(job, [new])
        return bool(rows)

    def _look_at(self, trial_id: str) -> None:
        """Compare what the runs of a trial should be with what has been delivered."""
        for goal in goals(self._reader.attempts(trial_id), self._held):
            key = (goal.trial_id, goal.lineage)
            job = self._jobs.get(key)
            run = self._ledger.current(run_id(self._reader.uid, *key))
            if goal.rejoined and (job is None or job.stage == "waiting") and self._ledger.version(run) is None:
                self._jobs.pop(key, None)  # nobody has seen it
                continue
            if job is None:
                if self._ledger.version(run) == goal.version:
                    continue
                job = self._jobs[key] = Job(goal, run)
            job.goal = goal
            if goal.rejoined:
                continue
            for attempt in goal.attempts:
                self._of_attempt[trial_id, attempt.attempt] = job
                if attempt.restored is not None and attempt.attempt > job.resumed:
                    job.resumed = attempt.attempt
                    job.steps.rewind(attempt.restored)

    # ------------------------------------------------------------ what the tracker gets

    def _room(self) -> int:
        """How many runs may be opened now: one at a time while the tracker cannot be reached."""
        stages = Counter(job.stage for job in self._jobs.values())
        if self.failures:
            return int(time.monotonic() >= self._not_before and not stages["opening"])
        return _LIVE - stages["open"] - stages["finishing"] - stages["opening"]

    def _advance(self, job: Job, room: bool) -> bool:
        """Take the next step with a run. Whether it was to open it."""
        ready = job.stage == "waiting" and (job.goal.over or self._live) and time.monotonic() >= job.not_before
        if ready and room:
            job.stage, job.opening = "opening", self._openers.submit(self._tracker.start, self._described(job))
            return True
        if job.stage == "opening" and job.opening and job.opening.done():
            self._opened(job, job.opening)
        if job.stage == "open" and job.goal.over:
            self._finish(job)
        elif job.stage == "finishing" and job.finishing and job.finishing.done():
            self._finished(job, job.finishing)
        return False

    def _described(self, job: Job) -> TrackedRun:
        trial, first = self._reader.exactly(job.goal.trial_id), job.goal.attempts[0]
        sweep = {
            "name": self._reader.name,
            "trial": trial.trial_id,
            "config_id": trial.config_id,  # the same for all seeds: group by it
            "seed": trial.seed,
            "attempt": first.attempt,
            "axes": trial.overrides,
        }
        return TrackedRun(
            run_id=job.run_id,
            trial_id=trial.trial_id,
            name=naming.label(trial.overrides) if trial.overrides else trial.trial_id,
            config=trial.config,
            sweep=sweep,
            tags=_tags(job.goal),
            started=first.started or first.created,
        )

    def _opened(self, job: Job, opening: Future[int]) -> None:
        try:
            first = opening.result()
        except TrackingError as error:
            self._failed(job, error)
            return
        self.failures, job.stage, job.seen = 0, "open", 0
        if job.goal.lineage > 1 and self._ledger.version(job.run_id) is None:
            self._ledger.deliver(job.run_id, OPENED)  # it may turn out to be superseded when nothing else knows of it
        if self._address is None and (address := self._tracker.address()):
            self._ledger.keep_address(address)
            self._address = address
        rows = self._reader.lineage_reports(job.goal.trial_id, job.goal.lineage) if first else []
        sent = (self._ledger.version(job.run_id) or "").partition(" ")[0]  # a change, which counts as reports do
        seen = int(sent) if sent.isdigit() else 0
        job.steps = Steps(first, [row for row in rows if job.goal.holds(row)], seen)
        self._catch_up(job)

    def _catch_up(self, job: Job) -> None:
        """Read rows and attempts at once: a row is worth nothing before it is known what its attempt has restored."""
        with self._reader.snapshot():
            self._look_at(job.goal.trial_id)
            rows = self._reader.lineage_reports(job.goal.trial_id, job.goal.lineage, job.seen)
        self._feed(job, rows)

    def _feed(self, job: Job, rows: Iterable[ReportRow]) -> None:
        new = [row for row in rows if row.id > job.seen and job.goal.holds(row)]
        before = len(job.steps.late) if job.seen else 0
        job.seen = max((row.id for row in new), default=job.seen)
        self._log(job, (step for row in new for step in job.steps.add(row)))
        if len(job.steps.late) > before:
            self._ledger.keep_late(job.run_id, job.goal.trial_id, len(job.steps.late))

    def _log(self, job: Job, steps: Iterable[tuple[int, dict[str, float], float]]) -> None:
        try:
            for step, metrics, at in steps:
                self._tracker.log(job.run_id, step, metrics, at)
        except TrackingError as error:
            self._failed(job, error)

    def _finish(self, job: Job) -> None:
        self._catch_up(job)
        if job.stage == "open" and not job.goal.over:  # another attempt has begun meanwhile
            return
        if job.stage == "open":
            self._log(job, job.steps.flush())
        if job.stage == "open":
            job.stage, job.closing = "finishing", job.goal.version
            code, tags = job.goal.exit_code, _tags(job.goal)
            job.finishing = self._finishers.submit(self._tracker.finish, job.run_id, code, tags)

    def _finished(self, job: Job, finishing: Future[None]) -> None:
        try:
            finishing.result()
        except TrackingError as error:
            self._failed(job, error)
            return
        self.failures = 0
        self._ledger.deliver(job.run_id, job.closing)
        if job.closing != job.goal.version:  # it went on, or was superseded, meanwhile
            job.stage = "waiting"
            return
        self.sent += 1
        self._drop(job)

    def _drop(self, job: Job) -> None:
        del self._jobs[job.goal.trial_id, job.goal.lineage]
        for attempt in job.goal.attempts:
            key = job.goal.trial_id, attempt.attempt
            if self._of_attempt.get(key) is job:
                del self._of_attempt[key]

    def _failed(self, job: Job, error: TrackingError) -> None:
        """The run is opened again later, and says then which steps it has."""
        job.stage, self.trouble = "waiting", error
        if not isinstance(error, RefusedError):
            now = time.monotonic()
            if now >= self._not_before:  # many runs that fail at once are one failure
                self.failures += 1
                self._not_before = now + min(15.0, 0.25 * 2 ** min(self.failures, 6))
            return
        job.refusals, job.not_before = job.refusals + 1, time.monotonic() + 1
        if job.refusals == _TRIES:  # one run that the tracker never takes must not keep the others waiting
            self.refused += 1
            self._oldest_refused = min(self._oldest_refused or self._changed, job.goal.attempts[-1].changed)
            self._drop(job)

    def supersede(self, trial_id: str, run: str) -> None:
        """Have a run say that another one has been sent in its place. Raises TrackingError."""
        with Reader(self._folder) as self._reader:
            goal = goals(self._reader.attempts(trial_id), held=False)[-1]
            try:
                self._tracker.start(self._described(Job(goal, run)))
                self._tracker.finish(run, goal.exit_code, (SUPERSEDED,))
            except RefusedError:  # it is not there any more
                return

    def _keep_cursor(self) -> None:
        """Up to the change before the first that belongs to a run not yet delivered."""
        firsts = [job.goal.attempts[-1].changed for job in self._jobs.values()]
        if self._oldest_refused is not None:
            firsts.append(self._oldest_refused)
        cursor = min([self._changed, *(first - 1 for first in firsts)])
        if cursor > self._saved:
            self._ledger.cursor = self._saved = cursor


def _tags(goal: Goal) -> tuple[str, ...]:
    return (SUPERSEDED,) if goal.superseded else ()
