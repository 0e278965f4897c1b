"""Records an event of a live attempt: in the manifest, in the sweep's folder, and in what the loop knows of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.coordinator.intake import accept_rows
from orchestrator.decide.standing import Standing
from orchestrator.files import replacing
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.stale import keep_used
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Ended, Event, Filed, Logged, Noticed, Reported, Restored, Saved, Started
from orchestrator.model.order import Checkpoint
from orchestrator.model.sweep import Objective, Resources, TrialSpec

_AT_ONCE = 256  # rows; more would not stay in a processor's cache
MAX_METRICS = 10_000  # of one attempt, whose last values are kept


@dataclass
class Live:
    """An attempt in flight."""

    key: int
    spec: TrialSpec
    attempt: int
    offered: tuple[Checkpoint, ...]
    lineage: int  # the one that it continues if it takes what it is offered
    created: float
    resources: Resources  # what it was given
    standing: Standing  # what its series has reached
    position: int = 0  # of the trial in the plan
    seq: int = -1
    started: Started | None = None
    restored: bool = False
    anew: bool = False  # it has reported without having restored: its series is a new one
    crowded: bool = False  # it has reported more metrics than are shown
    dropped: int = 0  # reported rows that could not be recorded


class Recording:
    """Its calls take part in the manifest's transaction around them."""

    def __init__(
        self, manifest: Manifest, files: SweepFolder, objective: Objective | None, warn: Callable[[str], None]
    ) -> None:
        self._manifest, self._files, self._objective, self._warn = manifest, files, objective, warn
        self._used: dict[str, str] = {}  # what attempts used -> the file that says it

    def take(self, live: Live, event: Event) -> None:
        """Record any event but `Ended`, which the coordinator decides about."""
        if isinstance(event, Started):
            live.started = event
            self._manifest.attempts.started(live.key, live.attempt, event)
        elif isinstance(event, Reported):
            self._reported(live, event)
        elif isinstance(event, Logged):
            self._append(self._manifest.folder.attempt_log(live.spec.trial_id, live.attempt), event.data)
        elif isinstance(event, Filed):
            self._keep(live, event)
        elif isinstance(event, Saved):
            self._manifest.attempts.saved(live.key, live.attempt, event.checkpoint, event.at)
        elif isinstance(event, Restored):
            live.restored, live.anew = True, False
            self._manifest.attempts.restored(live.key, live.attempt, event, live.lineage)
            self._go_back(live)
        elif isinstance(event, Noticed):
            self._manifest.attempts.noticed(live.key, live.attempt, event.text)
            self._warn(event.text)

    def ended(self, live: Live) -> None:
        """Say how many rows of the attempt were dropped, if any were."""
        if live.dropped:
            text = f"{live.dropped} row{'s were' if live.dropped > 1 else ' was'} lost: not readable as metrics"
            self._manifest.attempts.noticed(live.key, live.attempt, text)
            self._warn(f"{live.spec.trial_id[:8]}: {text}")

    def used(self, end: Ended) -> str:
        """Keep which files of the project an attempt used; most used the same. Returns the name of the file."""
        if end.used not in self._used:
            try:
                self._used[end.used] = keep_used(self._manifest.folder, end.used)
            except OSError as error:
                self._warn(f"which files a trial used is not kept: {error.strerror or error}")
                return ""
        return self._used[end.used]

    def _reported(self, live: Live, event: Reported) -> None:
        if live.offered and not live.restored and not live.anew:
            self._start_anew(live, event.rows[0][1])
        standing = live.standing
        for first in range(0, len(event.rows), _AT_ONCE):
            told = event.rows[first : first + _AT_ONCE]
            rows, metrics = accept_rows(told)
            live.dropped += len(told) - len(rows)
            self._manifest.attempts.reported(live.key, live.attempt, rows)
            standing.take_all([step for step, _, _ in rows], metrics)
        if standing.unsure is not None:
            standing.settle(self._manifest.attempts.series(live.key, standing.unsure))
        if len(standing.last) > MAX_METRICS:
            self._forget_newest(live)

    def _forget_newest(self, live: Live) -> None:
        """Keep the values of the first metrics only: they are written at each turn, for all readers."""
        known = live.standing.last
        newest = [name for name in known if not self._objective or name != self._objective.metric][MAX_METRICS:]
        live.standing.forget(newest)
        if newest and not live.crowded:
            live.crowded = True
            text = f"more than {MAX_METRICS} metrics: every row is kept, but tables show the first ones only"
            self._manifest.attempts.noticed(live.key, live.attempt, text)
            self._warn(f"{live.spec.trial_id[:8]}: {text}")

    def standing(self, key: int) -> Standing:
        """What the effective series of a trial has reached, as the manifest has it."""
        return Standing(self._objective, self._manifest.attempts.series(key))

    def _go_back(self, live: Live) -> None:
        """Forget what earlier attempts reported after the restored step: it will be reported again."""
        live.standing = self.standing(live.key)

    def _start_anew(self, live: Live, at: float) -> None:
        """The trainer reports without having restored the checkpoint that it was offered: this is a new series.

        If it restores one later, it rejoins the old series, and what it has reported by then comes after that.
        """
        live.anew = True
        live.standing = Standing(self._objective)
        self._manifest.attempts.new_lineage(live.key, live.attempt, at)

    def _append(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab") as log:
                log.write(data)
        except OSError as error:
            self._warn(f"{path}: output is not kept: {error.strerror or error}")

    def _keep(self, live: Live, event: Filed) -> None:
        """Keep a file from a node that does not see the sweep's folder, if it stays inside the trial's folder."""
        root = self._files.trial(live.spec.trial_id)
        path = (root / event.path).resolve()
        if root.resolve() not in path.parents:
            self._warn(f"{event.path}: a file outside the trial's folder was refused")
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                draft.write_bytes(event.data)
        except OSError as error:
            self._warn(f"{path}: not kept: {error.strerror or error}")
