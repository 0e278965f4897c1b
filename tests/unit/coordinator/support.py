"""A coordinator over an executor that does what the test says, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from orchestrator.coordinator.loop import Coordinator, Transition
from orchestrator.coordinator.trial_source import PlanSource
from orchestrator.errors import ResourceError
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import (
    Batch,
    Ended,
    Event,
    Failure,
    Reported,
    Saved,
    Started,
)
from orchestrator.model.exact_json import dumps
from orchestrator.model.order import Checkpoint, Order
from orchestrator.model.rows import AttemptRow
from orchestrator.model.sweep import Resources, State, SweepSpec
from tests.unit import manifests
from tests.unit.manifests import trial_id, trial_spec

STARTED = Started(1.0, "node-a", "", 7, (), (), 1, "fork")
DONE = Ended(2.0, exit_code=0, left=2.0, left_code=0)
FAILED = Ended(2.0, exit_code=1, failure=Failure("KeyError", "'x'", "train.py:88", "Traceback …"))
GONE = Ended(2.0, lost="worker")
Key = tuple[str, int]


def rows(*losses: float | str, step: int = 0, metric: str = "loss") -> Reported:
    return Reported(tuple((step + index, 1.0, dumps({metric: value})) for index, value in enumerate(losses)))


class Scripted:
    """An executor in memory: it keeps what it is given, and its attempts do what the test says with `tell`."""

    def __init__(self, folder: SweepFolder, slots: int = 1000, refused: ResourceError | None = None) -> None:
        """`refused`: what `check` raises."""
        self.folder, self.slots, self.refused = folder, slots, refused
        self.launched: list[Order] = []
        self.placed: list[Resources] = []
        self.seen_at_launch: list[AttemptRow] = []
        self.stopped: list[tuple[str, int, str]] = []
        self.killed = self.closed = False
        self.timeouts: list[float] = []
        self.batches: list[Batch] = []
        self._seq: dict[Key, int] = {}
        self._busy: set[Key] = set()

    def resolve(self, resources: Resources) -> Resources:
        return replace(resources, gpus=0.0, cpus=2.0)

    def check(self, resources: Resources) -> None:
        if self.refused is not None:
            raise self.refused

    def free(self, resources: Resources, opened: Sequence[Resources] = ()) -> bool:
        return len(self._busy) + len(opened) < self.slots

    def launch(self, order: Order, resources: Resources) -> None:
        with Reader(self.folder) as reader:  # a connection of its own: it sees what is committed
            self.seen_at_launch.append(reader.attempts(order.trial_id)[-1])
        self.launched.append(order)
        self.placed.append(resources)
        self._busy.add((order.trial_id, order.attempt))

    def poll(self, timeout: float) -> list[Batch]:
        self.timeouts.append(timeout)
        batches, self.batches = self.batches, []
        return batches

    def notices(self) -> list[str]:
        return []

    def stop(self, trial_id: str, attempt: int, why: str) -> None:
        self.stopped.append((trial_id, attempt, why))

    def kill(self) -> None:
        self.killed = True

    def close(self) -> None:
        self.closed = True

    def tell(self, number: int, *events: Event, attempt: int = 1, seq: int | None = None) -> None:
        """Events of a trial, which the next poll gives."""
        key = (trial_id(number), attempt)
        self._seq[key] = self._seq.get(key, -1) + 1 if seq is None else seq
        self.batches.append(Batch(*key, self._seq[key], events))
        for event in events:
            if isinstance(event, Saved):
                path = self.folder.trial(key[0]) / event.checkpoint.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        if any(isinstance(event, Ended) for event in events):
            self._busy.discard(key)


class Scene:
    """A sweep of some trials, its coordinator, and time."""

    def __init__(
        self,
        manifest: Manifest,
        trials: int = 3,
        spec: SweepSpec | None = None,
        *,
        limit: int | None = None,
        first: Sequence[str] = (),
        max_concurrent: int | None = None,
        **executor: Any,
    ) -> None:
        self.manifest, self.executor, self.now = manifest, Scripted(manifest.folder, **executor), 1000.0
        manifests.plan(manifest, [trial_spec(number) for number in range(trials)], spec=spec)
        plan = manifest.plans.current()
        assert plan is not None
        source = PlanSource(manifest, plan.plan, limit, first)
        self.coordinator = Coordinator(
            manifest, self.executor, source, plan, ("/sweep/code",), max_concurrent=max_concurrent, now=lambda: self.now
        )
        self.reader = Reader(manifest.folder)
        self.tick()

    def tick(self, *numbers_done: int) -> list[Transition]:
        """One turn, in which these trials have started, reported and succeeded."""
        for number in numbers_done:
            self.executor.tell(number, STARTED, rows(1.0), DONE)
        self.now += 1
        return self.coordinator.tick()

    def tell(self, number: int, *events: Event, attempt: int = 1, seq: int | None = None) -> list[Transition]:
        self.executor.tell(number, *events, attempt=attempt, seq=seq)
        return self.tick()

    def launched(self) -> list[int]:
        """Trials in the order of their launches."""
        ids = {trial_id(number): number for number in range(100)}
        return [ids[order.trial_id] for order in self.executor.launched]

    def states(self) -> list[State]:
        return [row.state for row in self.reader.trials()]

    def attempts(self, number: int) -> list[AttemptRow]:
        return self.reader.attempts(trial_id(number))


def saved(step: int) -> Saved:
    return Saved(Checkpoint(step, f"checkpoints/{step}"), 1.5)
