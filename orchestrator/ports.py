"""The seams, each with more than one honest implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.model.events import Batch
from orchestrator.model.order import Order
from orchestrator.model.sweep import Resources


class Executor(Protocol):
    """Runs attempts somewhere: Ray, or this process."""

    def resolve(self, resources: Resources) -> Resources:
        """Numbers for "auto"."""

    def check(self, resources: Resources) -> None:
        """Raises ResourceError if an attempt of this size could never run."""

    def free(self, resources: Resources, opened: Sequence[Resources] = ()) -> bool:
        """Whether one more attempt of this size should be launched now, besides those about to be (`opened`)."""

    def launch(self, order: Order, resources: Resources) -> None:
        """Start an attempt; returns at once. Its events come from `poll`."""

    def poll(self, timeout: float) -> list[Batch]:
        """Wait up to `timeout` seconds for events. Every launched attempt yields exactly one `Ended`, last."""

    def stop(self, trial_id: str, attempt: int, why: str) -> None:
        """Ask an attempt to end: SIGTERM, then SIGKILL after its grace. Idempotent."""

    def kill(self) -> None:
        """End every attempt at once."""

    def close(self) -> None:
        """Release everything; no process is left."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker shows of one lineage of a trial, beside its steps."""

    run_id: str
    name: str  # only what varies
    config: Mapping[str, Any]
    tags: tuple[str, ...] = ()
    started: float | None = None  # seconds since the epoch


class Tracker(Protocol):
    """A place outside that shows runs. Everything it gets can be replayed from the manifest.

    `start` and `finish` may wait for a network and are called from several threads; the other methods return at
    once. After a TrackingError the run is forgotten here and has to be started again.
    """

    def start(self, run: TrackedRun) -> int:
        """Open or continue a run; returns the first step it does not have yet. Raises TrackingError."""

    def log(self, run_id: str, step: int, metrics: Mapping[str, float], time: float) -> None:
        """One step, whole; steps of a run grow. Raises TrackingError."""

    def finish(self, run_id: str, exit_code: int, tags: Sequence[str]) -> None:
        """The run has ended; returns once the tracker holds all of it. Raises TrackingError."""

    def address(self) -> str | None:
        """Where a person sees the runs, once that is known."""

    def close(self) -> None:
        """Release everything."""
