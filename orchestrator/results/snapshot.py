"""The state of a sweep at one moment, read from its manifest, for the live view, `status` and `status --json`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.decide import failures
from orchestrator.folder.lock import Holder, holder_of
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.reader import PlanProgress, Reader
from orchestrator.model.rows import AttemptRow, TrialRow
from orchestrator.model.sweep import Objective, State, SweepSpec
from orchestrator.tracking import control

SHOWN_FAILURES = 3


@dataclass(frozen=True)
class Running:
    """A trial that is running."""

    trial_id: str
    overrides: Mapping[str, Any]
    state: State
    node: str
    gpus: str  # "gpu 0,1", or ""
    since: float
    metrics: dict[str, float]
    step: int = 0  # steps done
    steps: int | None = None  # of a full training; None: the sweep does not say

    @property
    def slot(self) -> str:
        return " ".join(filter(None, (self.node, self.gpus)))

    @property
    def progress(self) -> str:
        """ "step 7/20", or "" if nobody knows how many there will be."""
        return f"step {self.step}/{self.steps}" if self.steps else ""


@dataclass(frozen=True)
class FailureLine:
    """A group of trials that failed in the same way."""

    cause: str
    message: str
    trials: int
    example: str


@dataclass(frozen=True)
class Snapshot:
    """The state of a sweep at one moment."""

    name: str
    total: int
    counts: dict[State, int]
    stale: int
    objective: Objective | None
    best: TrialRow | None
    running: tuple[Running, ...]
    hosts: int  # on so many nodes trials run
    failures: tuple[FailureLine, ...]
    eta: float | None  # seconds
    holder: Holder | None
    died: bool  # whether the coordinator died while trials were running
    addresses: Mapping[str, str]  # where the sweep is shown, by the tracker's title
    created: float
    ended: float | None

    @property
    def finished(self) -> int:
        """The number of trials that the same command would not run again."""
        waiting = (State.PENDING, State.CANCELLED)
        return sum(count for state, count in self.counts.items() if state not in waiting and not state.open)

    @property
    def failed(self) -> int:
        return self.counts.get(State.FAILED, 0) + self.counts.get(State.LOST, 0)

    @property
    def failed_otherwise(self) -> int:
        """The number of failed trials that `failures` does not include."""
        return max(0, self.failed - sum(line.trials for line in self.failures))

    @property
    def exit_code(self) -> int:
        return 1 if self.failed else 0

    def as_json(self) -> dict[str, Any]:
        best = self.best
        return {
            "sweep": self.name,
            "total": self.total,
            "counts": {state.value: self.counts.get(state, 0) for state in State},
            "stale": self.stale,
            "best": best
            and {
                "trial_id": best.trial_id,
                "objective": best.objective,
                "metric": self.objective and self.objective.metric,
                "overrides": best.overrides,
            },
            "running": [
                {
                    "trial_id": row.trial_id,
                    "state": row.state.value,
                    "slot": row.slot,
                    "metrics": row.metrics,
                    "step": row.step,
                    "steps": row.steps,
                }
                for row in self.running
            ],
            "failures": [dataclasses.asdict(row) for row in self.failures],
            "eta": self.eta,
            "coordinator": self.holder and {"host": self.holder.host, "pid": self.holder.pid},
            "address": next(iter(self.addresses.values()), None),
        }


def read_snapshot(folder: SweepFolder, reader: Reader, shown: int = 12) -> Snapshot:
    """Read the state of the sweep now, with at most `shown` running trials."""
    holder = holder_of(folder)
    with reader.snapshot():
        plan = reader.plan()
        progress = reader.progress()
        objective = plan.spec.objective if plan else None
        open_attempts = reader.running()
        attempts = open_attempts if holder else []
        spec = plan.spec if plan else None
        running = tuple(_running(reader, row, spec) for row in attempts[:shown] if row.state is State.RUNNING)
        return Snapshot(
            name=reader.name,
            total=plan.total or sum(progress.counts.values()) if plan else 0,
            counts=dict(progress.counts) if holder else _interrupted(dict(progress.counts)),
            stale=progress.stale,
            objective=objective,
            best=reader.best(objective),
            running=running,
            hosts=len({row.node for row in attempts if row.node}),
            failures=_failures(reader),
            eta=_eta(progress, attempts) if holder else None,
            holder=holder,
            died=bool(open_attempts) and holder is None,
            addresses=control.addresses(folder),
            created=plan.created if plan else 0.0,
            ended=plan.ended if plan else None,
        )


def _interrupted(counts: dict[State, int]) -> dict[State, int]:
    """Counts for a sweep without a coordinator: trials that were running when it died wait to run again."""
    left = counts.pop(State.RUNNING, 0) + counts.pop(State.LAUNCHING, 0)
    return {**counts, State.PENDING: counts.get(State.PENDING, 0) + left} if left else counts


def _running(reader: Reader, row: AttemptRow, spec: SweepSpec | None) -> Running:
    trial = reader.trial(row.trial_id)
    steps = spec.steps_of(trial.config) if spec else None
    return Running(
        trial_id=row.trial_id,
        overrides=trial.overrides,
        state=row.state,
        node=row.node,
        gpus=f"gpu {','.join(row.gpus)}" if row.gpus else "",
        since=row.started or row.created,
        metrics=dict(row.metrics),
        step=reader.steps_done(row.trial_id, row.attempt) if steps else 0,
        steps=steps,
    )


def _failures(reader: Reader) -> tuple[FailureLine, ...]:
    groups = failures.grouped(reader.failed())[:SHOWN_FAILURES]
    return tuple(FailureLine(each.fingerprint.cause, each.line, len(each.trials), each.example) for each in groups)


def _eta(progress: PlanProgress, attempts: list[AttemptRow]) -> float | None:
    """Seconds until the plan is done, if the remaining trials take as long as the finished ones on average."""
    running = [row for row in attempts if row.state is State.RUNNING]
    mean, counts = progress.seconds, progress.counts
    if mean is None or not running:
        return None
    now = time.time()
    left = counts.get(State.PENDING, 0) + counts.get(State.LAUNCHING, 0)
    ran = [max(0.0, now - (row.started or now)) for row in running]  # the clock of a node may be ahead of ours
    rest = sum(max(0.0, mean - seconds) for seconds in ran)
    return (left * mean + rest) / len(running)
