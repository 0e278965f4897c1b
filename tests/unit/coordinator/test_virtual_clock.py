"""Days of trials in no time: the coordinator has no clock but the one it is given, and waits in `poll` alone."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.coordinator.loop import Coordinator
from orchestrator.coordinator.trial_source import PlanSource
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Batch, Ended, Started
from orchestrator.model.order import Order
from orchestrator.model.sweep import Resources, State
from orchestrator.ports import Executor
from tests.unit import manifests
from tests.unit.manifests import sweep_spec, trial_id, trial_spec

HOUR = 3600.0
BEGIN = 1_000_000.0


class Simulated:
    """An executor whose trials take as many hours as their `x` says, on a clock that only `poll` moves."""

    def __init__(self, slots: int) -> None:
        self.now, self._slots = BEGIN, slots
        self._ends: list[tuple[float, str, int]] = []
        self._batches: list[Batch] = []

    def clock(self) -> float:
        return self.now

    def resolve(self, resources: Resources) -> Resources:
        return replace(resources, gpus=0.0, cpus=1.0)

    def check(self, resources: Resources) -> None:
        """Everything fits."""

    def free(self, resources: Resources, opened: Sequence[Resources] = ()) -> bool:
        return len(self._ends) + len(opened) < self._slots

    def launch(self, order: Order, resources: Resources) -> None:
        started = Started(self.now, "here", "", 1, (), (), order.threads, "fork")
        self._batches.append(Batch(order.trial_id, order.attempt, 0, (started,)))
        heapq.heappush(self._ends, (self.now + order.config["x"] * HOUR, order.trial_id, order.attempt))

    def poll(self, timeout: float) -> list[Batch]:
        if not self._batches and self._ends:
            self.now, trial, attempt = heapq.heappop(self._ends)
            self._batches.append(Batch(trial, attempt, 1, (Ended(self.now, exit_code=0, left_code=0),)))
        batches, self._batches = self._batches, []
        return batches

    def notices(self) -> list[str]:
        return []

    def stop(self, trial_id: str, attempt: int, why: str) -> None:
        for entry in [entry for entry in self._ends if entry[1:] == (trial_id, attempt)]:
            self._ends.remove(entry)
            self._batches.append(Batch(trial_id, attempt, 1, (Ended(self.now, asked=why),)))

    def kill(self) -> None:
        for _, trial, attempt in list(self._ends):
            self.stop(trial, attempt, "cancelled")

    def close(self) -> None:
        self.kill()


def test_days_of_trials_pass_at_once(manifest: Manifest) -> None:
    """Trials of 1, 2, …, 40 hours on four slots: each starts when an earlier one has ended."""
    manifests.plan(manifest, [trial_spec(hours) for hours in range(1, 41)], spec=sweep_spec(objective=None))
    plan = manifest.plans.current()
    assert plan is not None
    simulated = Simulated(slots=4)
    executor: Executor = simulated
    source = PlanSource(manifest, plan.plan)
    coordinator = Coordinator(manifest, executor, source, plan, (), now=simulated.clock)
    at_once: list[int] = []
    coordinator.run(lambda _: at_once.append(len(coordinator.live)))
    assert max(at_once) == 4
    ends = [0.0] * 4  # of the four slots, in hours
    with Reader(manifest.folder) as reader:
        for hours in range(1, 41):
            (attempt,) = reader.attempts(trial_id(hours))
            begun = min(ends)
            ends[ends.index(begun)] = begun + hours
            assert attempt.state is State.SUCCEEDED
            assert (attempt.created, attempt.started) == (BEGIN + begun * HOUR, BEGIN + begun * HOUR)
            assert attempt.ended == BEGIN + (begun + hours) * HOUR
        found = reader.plan()
    assert found is not None
    assert found.ended == BEGIN + max(ends) * HOUR == simulated.now
