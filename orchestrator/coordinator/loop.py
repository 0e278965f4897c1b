"""The loop: read the manifest, decide, record the decision, then act.

One tick is one transaction: it records events, closes attempts that have ended, and opens new ones. Once it is durable,
the new attempts are launched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestrator import naming
from orchestrator.coordinator import resubmission
from orchestrator.coordinator.intake import accept
from orchestrator.coordinator.recording import Live, Recording
from orchestrator.decide import lifecycle, pace
from orchestrator.decide.early_abort import EarlyAbort, unreported
from orchestrator.decide.quarantine import Quarantine
from orchestrator.decide.standing import Standing
from orchestrator.errors import OrchestratorError, ResourceError
from orchestrator.folder.paths import files_folder
from orchestrator.folder.requests import Request, answer_request, pending_requests
from orchestrator.language import identity
from orchestrator.manifest.attempts import Opening
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Batch, Ended, Event, Outcome, Reported, Restored, Started
from orchestrator.model.order import Checkpoint, Order
from orchestrator.model.rows import Due, PlanRow
from orchestrator.model.sweep import Resources, State, TrialSpec
from orchestrator.node.shared.zygote_spec import shell_variables
from orchestrator.ports import Clock, Executor, TrialSource

POLL = 0.1  # seconds one tick waits for events at most
_POLLS = 10  # at most, for what has arrived when all is killed: trials may go on reporting
_UNREPORTED = "a trial succeeded without"


@dataclass(frozen=True)
class Transition:
    """A change of an attempt's state that the user is shown."""

    spec: TrialSpec
    attempt: int
    state: State
    live: Live
    message: str = ""
    place: str = ""  # the user's frame
    retry: bool = False
    at: float | None = None  # when it ended: seconds since the epoch


class Coordinator:
    """Drives the trials of one plan to their ends. The caller holds the sweep's lock."""

    def __init__(
        self,
        manifest: Manifest,
        executor: Executor,
        source: TrialSource,
        plan: PlanRow,
        import_path: Sequence[str],
        *,
        max_concurrent: int | None = None,
        now: Clock = time.time,
    ) -> None:
        self._env = shell_variables(plan.spec.env)
        self._manifest, self._executor, self._source, self._plan = manifest, executor, source, plan
        self._import_path, self._max, self._now = tuple(import_path), max_concurrent, now
        self.live: dict[tuple[str, int], Live] = {}
        self.stopping = False
        self.warnings: list[str] = []
        self._spec = plan.spec
        self._full = False  # a trial waits for room
        self.quarantine = Quarantine()
        self.early_abort = _early_abort(manifest, plan)
        self._files = files_folder(manifest.folder, plan.spec.storage, plan.cwd, manifest.uid)
        self._recording = Recording(manifest, self._files, plan.spec.objective, self.warn)
        self._stop_asked = self._kill_asked = False

    # ------------------------------------------------------------ the loop

    def run(self, each: Callable[[list[Transition]], None]) -> None:
        """Tick until nothing is left to do; `each` sees the transitions of every tick."""
        while not self.done:
            each(self.tick())
        with self._manifest.transaction():
            self._manifest.plans.end_run(self._plan.plan, self._now())

    @property
    def done(self) -> bool:
        ending = self.stopping or self.early_abort.due
        return not self.live and (ending or self._source.exhausted)

    def tick(self) -> list[Transition]:
        """One turn: events in, decisions recorded, then acted upon."""
        if self._kill_asked:
            return self.kill()
        if self._stop_asked and not self.stopping:
            self.stop()
        batches = self._executor.poll(POLL if self.live or self._full else 0.0)
        self.warnings += self._executor.notices()
        transitions: list[Transition] = []
        with self._manifest.transaction():
            for batch in batches:
                transitions += self._record(batch)
            answers = [
                (path, self._apply_request(request)) for path, request in pending_requests(self._manifest.folder)
            ]
            launches = [] if self.stopping or self.early_abort.due else self._open()
        self._answer(answers)
        for live, order in launches:
            self._executor.launch(order, self._placed(live.resources))
            transitions.append(Transition(live.spec, live.attempt, State.LAUNCHING, live))
        return transitions

    def _answer(self, answers: Sequence[tuple[Path, str]]) -> None:
        """Answer requests that were carried out. If that fails, whoever waits for the answer gives up waiting."""
        for path, text in answers:
            try:
                answer_request(path, text)
            except OSError as error:
                self.warn(f"{path}: a request was carried out, and cannot be answered: {error.strerror or error}")

    def request_stop(self) -> None:
        """Stop at the next tick; may be called from a signal handler."""
        self._stop_asked = True

    def request_kill(self) -> None:
        """Kill at the next tick; may be called from a signal handler."""
        self._kill_asked = True

    def stop(self) -> None:
        """Launch nothing more, and ask what runs to end within its grace."""
        self.stopping = True
        for trial_id, attempt in reversed(self.live):  # what waits comes first: it must not start in a freed slot
            self._executor.stop(trial_id, attempt, "cancelled")

    def kill(self) -> list[Transition]:
        """End everything at once, and record it. What has ended by itself by now stays what it is."""
        self.stopping = True
        transitions: list[Transition] = []
        arrived = self._arrived()
        self._executor.kill()
        now = self._now()
        with self._manifest.transaction():
            for batch in arrived:
                transitions += self._record(batch)
            for live in self.live.values():
                outcome = Outcome(State.CANCELLED, "cancelled", "interrupted twice", retry=live.started is None)
                self._manifest.attempts.close(live.key, live.attempt, outcome, Ended(now))
        self.live.clear()
        return transitions

    def _arrived(self) -> list[Batch]:
        """All events that the executor has by now; none if it has lost its cluster."""
        batches: list[Batch] = []
        with suppress(OrchestratorError):
            for _ in range(_POLLS):
                found = self._executor.poll(0.0)
                batches += found
                if not found:
                    break
        return batches

    # ------------------------------------------------------------ launching

    def _open(self) -> list[tuple[Live, Order]]:
        """Open attempts while there is room for them."""
        opened: list[tuple[Live, Order]] = []
        self._full = False
        now = self._now()
        while self._max is None or len(self.live) < self._max:
            due = self._source.next()
            if due is None:
                break
            if not self._executor.free(self._placed(_size(due)), [live.resources for live, _ in opened]):
                self._source.give_back(due)
                self._full = True
                break
            opened.append(self._open_one(due, now))
        return opened

    def _placed(self, resources: Resources) -> Resources:
        """The same, but on no node in quarantine, if another node has what is asked for."""
        elsewhere = self.quarantine.avoid(resources)
        try:
            if elsewhere is not resources:
                self._executor.check(elsewhere)
        except ResourceError:
            return resources
        return elsewhere

    def _open_one(self, due: Due, now: float) -> tuple[Live, Order]:
        earlier = self._manifest.attempts.of(due.key)
        last = earlier[-1] if earlier else None
        offered = self._saved(due, last.lineage) if last is not None and lifecycle.continues(last) else ()
        number = self._manifest.attempts.next_number(due.key)
        lineage = lifecycle.next_lineage(number, last, bool(offered))
        standing = Standing(self._spec.objective)
        live = Live(due.key, due.spec, number, offered, lineage, now, _size(due), standing, due.position)
        self._manifest.attempts.open(self._opening(live))
        if last is not None and offered:
            live.standing = self._recording.standing(live.key)
        self.live[due.spec.trial_id, number] = live
        return live, self._order(live)

    def _opening(self, live: Live) -> Opening:
        return Opening(
            key=live.key,
            attempt=live.attempt,
            lineage=live.lineage,
            plan=self._plan.plan,
            code=self._plan.code,
            at=live.created,
            resources=self._executor.resolve(live.resources),
            deterministic=self._spec.deterministic,
            ignored=identity.omitted(live.spec.config, self._spec.ignore),
        )

    def _saved(self, due: Due, lineage: int) -> tuple[Checkpoint, ...]:
        """Checkpoints that the next attempt may go on from: the manifest knows them, and their files still exist."""
        folder = self._files.trial(due.spec.trial_id)
        known = self._manifest.attempts.checkpoints(due.key, lineage)
        return tuple(saved for saved in known if (folder / saved.path).is_file())

    def _order(self, live: Live) -> Order:
        resources = self._executor.resolve(live.spec.resources)
        return replace(
            Order.of(self._spec, live.spec),
            sweep_uid=self._manifest.uid,
            attempt=live.attempt,
            import_path=self._import_path,
            cwd=self._plan.cwd,
            folder=str(self._files.trial(live.spec.trial_id)),
            threads=max(1, int(resources.cpus)),
            gpus=float(resources.gpus),
            interval=pace.LEAST,
            restore=live.offered,
            number=live.position,
            env=self._env,
        )

    # ------------------------------------------------------------ recording

    def _record(self, batch: Batch) -> list[Transition]:
        """Write one batch; drop it if its attempt is closed, or if it was seen before."""
        live = self.live.get((batch.trial_id, batch.attempt))
        if live is None or batch.seq <= live.seq:
            return []
        live.seq = batch.seq
        progress = False
        transitions = []
        for told in batch.events:
            event = accept(told)
            if event is None:
                continue
            progress |= isinstance(event, (Reported, Restored))
            transition = self._apply(live, event)
            if transition:
                transitions.append(transition)
            if isinstance(event, Ended):
                break
        if progress:
            self._manifest.attempts.progressed(live.key, live.attempt, live.standing)
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
            earlier = self._manifest.attempts.since_asked(live.key, before=live.attempt)
            retry = lifecycle.retried(outcome, live.started is None, earlier, self._spec.retries)
        outcome = replace(outcome, retry=retry)
        self._manifest.attempts.close(live.key, live.attempt, outcome, event, self._recording.used(event))
        self._recording.ended(live)
        if outcome.state is State.SUCCEEDED:
            self._miss_objective(live)
        del self.live[live.spec.trial_id, live.attempt]
        self._decide(live, outcome, event.at)
        if retry and not self.stopping:
            self._source.again([live.spec.trial_id])
        return Transition(live.spec, live.attempt, outcome.state, live, outcome.message, outcome.place, retry, event.at)

    def _decide(self, live: Live, outcome: Outcome, now: float) -> None:
        """What this end means for the rest of the sweep: it may be aborted, or a node left out. Recorded first."""
        aborted = self.early_abort.due
        self.early_abort.record(
            live.spec, outcome, live.standing.last, (each.standing.last for each in self.live.values())
        )
        verdict = self.early_abort.verdict
        if verdict and not aborted:
            self._manifest.attempts.decided("abort", {"reason": verdict.reason}, now, live.key)
        left_out = self.quarantine.record(live.spec.trial_id, live.started, outcome)
        if left_out and live.started:
            self._manifest.attempts.decided("leave_out", {"node": live.started.node_id, "reason": left_out}, now)
            self.warn(left_out)

    def _miss_objective(self, live: Live) -> None:
        """Warn, once, of a success that cannot be compared. `show` says it of each such trial."""
        text = unreported(self._spec.objective, live.standing.last)
        if text and not any(warning.startswith(_UNREPORTED) for warning in self.warnings):
            self.warn(f"{_UNREPORTED}{text.removeprefix('succeeded without')}")

    def warn(self, text: str | None) -> None:
        """Tell the user this, once."""
        if text and text not in self.warnings:
            self.warnings.append(text)

    # ------------------------------------------------------------ requests

    def _apply_request(self, request: Request) -> str:
        if request.problem:
            return f"this request cannot be read: {request.problem}"
        if request.kind == "stop":
            self.stop()
            return f"{naming.count(len(self.live), 'trial')} asked to end"
        if request.kind == "resubmit":
            try:
                done = self.resubmit(request.trials, request.settings)
            except OrchestratorError as error:
                return f"nothing is queued: {error}"
            later = " for the next run: this one is ending" if self.stopping else ""
            return f"{naming.count(done, 'trial')} queued{later}"
        return "this coordinator does not know that request"

    def resubmit(self, trial_ids: Iterable[str], settings: Mapping[str, Any] = MappingProxyType({})) -> int:
        """Queue a further attempt at each ended trial; returns how many. Raises ConfigError, ResourceError."""
        done, self._spec = resubmission.apply(self._manifest, self._executor, self._spec, trial_ids, settings)
        self._source.again(done)
        return len(done)


def _early_abort(manifest: Manifest, plan: PlanRow) -> EarlyAbort:
    """What it needs to know of earlier runs of this plan."""
    trials, objective = manifest.trials, plan.spec.objective
    return EarlyAbort(
        plan.spec.stop_after_failures,
        trials.any_succeeded(plan.plan),
        lambda: trials.several_options(plan.plan),
        objective,
        objective is not None and trials.any_reported(plan.plan, objective.metric),
    )


def _size(due: Due) -> Resources:
    """What the trial asks for; with nothing beside it, if it has run out of memory."""
    return replace(due.spec.resources, alone=lifecycle.RETRY_ALONE.get(due.cause, ""))
