"""The loop: read the manifest, decide, record the decision, then act.

One tick is one transaction: events are recorded, ended attempts closed, new attempts opened; only when it is durable
are the new attempts launched.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from orchestrator.coordinator import resubmission
from orchestrator.coordinator.recording import Live, Recording
from orchestrator.decide import lifecycle
from orchestrator.decide.early_abort import EarlyAbort
from orchestrator.decide.quarantine import Quarantine
from orchestrator.errors import OrchestratorError, ResourceError
from orchestrator.folder.paths import files_folder
from orchestrator.folder.requests import answer_request, pending_requests
from orchestrator.manifest.writer import Due, Manifest
from orchestrator.model.events import Batch, Ended, Event, Outcome, Reported, Restored, Started
from orchestrator.model.order import Checkpoint, Order
from orchestrator.model.rows import PlanRow
from orchestrator.model.sweep import Resources, State, TrialSpec
from orchestrator.ports import Executor

POLL = 0.1  # seconds one tick waits for events at most
MESSAGES = 100  # a second, from all attempts together


@dataclass(frozen=True)
class Transition:
    """A change worth a line."""

    spec: TrialSpec
    attempt: int
    state: State
    live: Live
    message: str = ""
    place: str = ""  # the user's frame
    retry: bool = False


class Coordinator:
    """Drives the trials of one plan to their ends. The caller holds the sweep's lock."""

    def __init__(
        self,
        manifest: Manifest,
        executor: Executor,
        plan: PlanRow,
        import_path: Sequence[str],
        *,
        max_concurrent: int | None = None,
        limit: int | None = None,
        first: Sequence[str] = (),
    ) -> None:
        """`first` names trials that were resubmitted: they run before the rest, and need not be of this plan."""
        self._manifest, self._executor, self._plan = manifest, executor, plan
        self._import_path, self._max, self._limit = tuple(import_path), max_concurrent, limit
        self.live: dict[tuple[str, int], Live] = {}
        self.stopping = False
        self.warnings: list[str] = []
        self.ended = 0  # attempts, in this run
        self._after = -1  # position up to which the plan was taken
        self._next: deque[Due] = deque()
        self._again = deque(first)  # trials due once more
        self._spec = plan.spec
        self._exhausted = False
        least, succeeded = plan.spec.stop_after_failures, manifest.succeeded(plan.plan)
        self.quarantine = Quarantine()
        self.early_abort = EarlyAbort(least, succeeded, lambda: manifest.several_options(plan.plan))
        self._files = files_folder(manifest.folder, plan.spec.storage, plan.cwd, manifest.uid)
        self._recording = Recording(manifest, self._files, plan.spec.objective, self._warn)
        self._stop_asked = self._kill_asked = False

    # ------------------------------------------------------------ the loop

    def run(self, each: Callable[[list[Transition]], None]) -> None:
        """Tick until nothing is left to do; `each` sees the transitions of every tick."""
        while not self.done:
            each(self.tick(time.time()))
        with self._manifest.transaction():
            self._manifest.end_run(self._plan.plan, time.time())

    @property
    def done(self) -> bool:
        ending = self.stopping or self.early_abort.due
        return not self.live and (ending or (self._exhausted and not self._next and not self._again))

    def tick(self, now: float) -> list[Transition]:
        """One turn: events in, decisions recorded, then acted upon."""
        if self._kill_asked:
            self.kill(now)
            return []
        if self._stop_asked and not self.stopping:
            self.stop()
        batches = self._executor.poll(POLL if self.live or self._next else 0.0)
        transitions: list[Transition] = []
        with self._manifest.transaction():
            for batch in batches:
                transitions += self._record(batch)
            answers = [
                (path, self._apply_request(request)) for path, request in pending_requests(self._manifest.folder)
            ]
            launches = [] if self.stopping or self.early_abort.due else self._open(now)
        for path, text in answers:
            answer_request(path, text)
        for live, order in launches:
            self._executor.launch(order, self._placed(live.resources))
            transitions.append(Transition(live.spec, live.attempt, State.LAUNCHING, live))
        return transitions

    def request_stop(self) -> None:
        """Stop at the next tick; may be called from a signal handler."""
        self._stop_asked = True

    def request_kill(self) -> None:
        """Kill at the next tick; may be called from a signal handler."""
        self._kill_asked = True

    def stop(self) -> None:
        """Launch nothing more, and ask what runs to end within its grace."""
        self.stopping = True
        for trial_id, attempt in reversed(self.live):  # what still waits first: it must not start in a freed slot
            self._executor.stop(trial_id, attempt, "cancelled")

    def kill(self, now: float) -> None:
        """End everything at once, and record it."""
        self.stopping = True
        self._executor.kill()
        with self._manifest.transaction():
            for live in self.live.values():
                outcome = Outcome(State.CANCELLED, "cancelled", "interrupted twice", retry=live.started is None)
                self._manifest.close_attempt(live.key, live.attempt, outcome, now, None, None)
        self.live.clear()

    # ------------------------------------------------------------ launching

    def _open(self, now: float) -> list[tuple[Live, Order]]:
        """Open attempts while there is room for them."""
        opened: list[tuple[Live, Order]] = []
        while self._max is None or len(self.live) < self._max:
            due = self._take()
            if due is None:
                break
            if not self._executor.free(self._placed(_size(due)), [live.resources for live, _ in opened]):
                self._next.appendleft(due)
                break
            opened.append(self._open_one(due, now))
        return opened

    def _take(self) -> Due | None:
        """The next trial that waits for an attempt: retries first, then the plan in order."""
        while self._again:
            due = self._manifest.due_one(self._again.popleft())
            if due is not None:
                return due
        if not self._next and not self._exhausted:
            self._next.extend(self._manifest.due(self._plan.plan, self._after, 256))
            if self._limit is not None:
                self._next = deque(due for due in self._next if due.position < self._limit)
            self._exhausted = not self._next
            if self._next:
                self._after = self._next[-1].position
        while self._next:  # since it was read there, a trial may have been resubmitted, and run
            due = self._manifest.due_one(self._next.popleft().spec.trial_id)
            if due is not None:
                return due
        return None

    def _placed(self, resources: Resources) -> Resources:
        """On no node in quarantine, as long as another one has what is asked for."""
        elsewhere = self.quarantine.avoid(resources)
        try:
            if elsewhere is not resources:
                self._executor.check(elsewhere)
        except ResourceError:
            return resources
        return elsewhere

    def _open_one(self, due: Due, now: float) -> tuple[Live, Order]:
        earlier = self._manifest.attempts(due.key)
        last = earlier[-1] if earlier else None
        offered = self._saved(due, last.lineage) if last is not None and lifecycle.continues(last) else ()
        number = last.attempt + 1 if last else 1
        lineage = lifecycle.next_lineage(number, last, bool(offered))
        self._manifest.open_attempt(due.key, number, lineage, self._plan.code, now)
        live = Live(due.key, due.spec, number, offered, now, _size(due))
        if last is not None and offered:
            live.metrics, live.objective = dict(last.metrics), last.objective
        self.live[due.spec.trial_id, number] = live
        return live, self._order(live)

    def _saved(self, due: Due, lineage: int) -> tuple[Checkpoint, ...]:
        """What the next attempt may go on from: states that the manifest knows and that are still there."""
        folder = self._files.trial(due.spec.trial_id)
        known = self._manifest.checkpoints(due.key, lineage)
        return tuple(saved for saved in known if (folder / saved.path).is_file())

    def _order(self, live: Live) -> Order:
        spec, sweep = live.spec, self._spec
        resources = self._executor.resolve(spec.resources)
        return Order(
            sweep_uid=self._manifest.uid,
            trial_id=spec.trial_id,
            attempt=live.attempt,
            trainer=sweep.trainer,
            config=spec.config,
            references=spec.references,
            seed=spec.seed,
            import_path=self._import_path,
            cwd=self._plan.cwd,
            folder=str(self._files.trial(spec.trial_id)),
            threads=max(1, int(resources.cpus)),
            gpus=float(resources.gpus),
            start=sweep.start,
            deterministic=sweep.deterministic,
            grace=sweep.grace,
            interval=max(0.25, len(self.live) / MESSAGES),
            returned=sweep.objective.metric if sweep.objective else "objective",
            restore=live.offered,
            timeout=sweep.timeout,
            heartbeat=sweep.heartbeat,
        )

    # ------------------------------------------------------------ recording

    def _record(self, batch: Batch) -> list[Transition]:
        """Write one batch; events of a closed attempt, or seen before, are dropped."""
        live = self.live.get((batch.trial_id, batch.attempt))
        if live is None or batch.seq <= live.seq:
            return []
        live.seq = batch.seq
        progress = False
        transitions = []
        for event in batch.events:
            progress |= isinstance(event, (Reported, Restored))
            transition = self._apply(live, event)
            if transition:
                transitions.append(transition)
            if isinstance(event, Ended):
                break
        if progress:
            self._manifest.progressed(live.key, live.attempt, live.seq, live.metrics, live.objective)
        return transitions

    def _apply(self, live: Live, event: Event) -> Transition | None:
        if isinstance(event, Ended):
            return self._close(live, event)
        self._recording.take(live, event)
        if isinstance(event, Started):
            return Transition(live.spec, live.attempt, State.RUNNING, live)
        return None

    def _close(self, live: Live, event: Ended) -> Transition:
        outcome = lifecycle.classify(event)
        retry = False
        if outcome.state in (State.FAILED, State.LOST, State.CANCELLED):
            earlier = self._manifest.attempts_since_asked(live.key, before=live.attempt)
            retry = lifecycle.retried(outcome, live.started is None, earlier, self._spec.retries)
        outcome = replace(outcome, retry=retry)
        self._manifest.close_attempt(live.key, live.attempt, outcome, event.at, event.entered, event.left)
        self._miss_objective(live, outcome)
        del self.live[live.spec.trial_id, live.attempt]
        self.ended += 1
        self.early_abort.record(live.spec, outcome)
        self._warn(self.quarantine.record(live.spec.trial_id, live.started, outcome))
        if retry and not self.stopping:
            self._again.append(live.spec.trial_id)
        return Transition(live.spec, live.attempt, outcome.state, live, outcome.message, outcome.place, retry)

    def _miss_objective(self, live: Live, outcome: Outcome) -> None:
        """A success that cannot be compared with others is told: its trainer may have left early, or misspelt it."""
        objective = self._spec.objective
        if outcome.state is State.SUCCEEDED and objective is not None and objective.metric not in live.metrics:
            text = f"succeeded without a report of {objective.metric!r}, which is sweep.objective"
            self._manifest.noticed(live.key, live.attempt, text)
            self._warn(f"a trial {text}")

    def _warn(self, text: str | None) -> None:
        if text and text not in self.warnings:
            self.warnings.append(text)

    # ------------------------------------------------------------ requests

    def _apply_request(self, request: dict[str, Any]) -> str:
        if request.get("kind") == "stop":
            self.stop()
            return f"{_trials(len(self.live))} asked to end"
        if request.get("kind") == "resubmit":
            try:
                done = self.resubmit([str(name) for name in request.get("trials", [])], request.get("set", {}))
            except OrchestratorError as error:
                return f"nothing is queued: {error}"
            return f"{_trials(done)} queued" + (" for the next run: this one is ending" if self.stopping else "")
        return "this coordinator does not know that request"

    def resubmit(self, trial_ids: Iterable[str], settings: Mapping[str, Any] = MappingProxyType({})) -> int:
        """Queue a further attempt of each ended trial; how many were. Raises ConfigError, ResourceError."""
        done, self._spec = resubmission.apply(self._manifest, self._executor, self._spec, trial_ids, settings)
        self._again.extend(done)
        return len(done)


def _size(due: Due) -> Resources:
    """What the trial asks for; alone, if it has run out of memory beside others."""
    return replace(due.spec.resources, alone=lifecycle.RETRY_ALONE.get(due.cause, ""))


def _trials(count: int) -> str:
    return f"{count} trial{'s' * (count != 1)}"
