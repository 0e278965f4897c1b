"""The seams, each with more than one honest implementation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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


class SearchStrategy(Protocol):
    """Which assignments to try. `space.Assignment` is opaque here."""

    def ask(self) -> Iterator[Any]:
        """Assignments in order, lazily; the same ones each time it is called."""

    def tell(self, trial_id: str, objective: float | None) -> None:
        """A trial has ended with this objective."""


@dataclass(frozen=True)
class TrackedSweep:
    """What a tracker is told of a sweep when it is created."""

    name: str
    folder: Path  # the sweep's folder, where a tracker may keep files of its own
    project: Path  # where relative paths of the sweep file begin
    options: Any  # what the sweep file says of this tracker
    sync: bool = False  # the user asked for delivery now: go online even if the sweep is recorded offline


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker shows of one lineage of a trial, beside its steps."""

    run_id: str
    trial_id: str
    name: str  # only what varies
    config: Mapping[str, Any]  # the trial's
    sweep: Mapping[str, Any]  # where the run belongs: sweep, trial, config_id, seed, attempt, axes
    tags: tuple[str, ...] = ()
    started: float | None = None  # seconds since the epoch


class Tracker(Protocol):
    """A place outside that shows runs. Everything it gets can be replayed from the manifest.

    `start` and `finish` may wait for a network or a disk and are called from several threads; `log` is called from one
    thread and returns at once. After a TrackingError the run is forgotten here and has to be started again.
    """

    live: bool  # runs are shown while they go on; otherwise each is delivered as a whole once it is over
    destination: str  # where runs go: what has arrived at one destination has not arrived at another
    dead: bool  # nothing works any more in this process; a new one can go on

    def start(self, run: TrackedRun) -> int:
        """Open or continue a run; returns the first step it does not have yet. Raises TrackingError."""

    def log(self, run_id: str, step: int, metrics: Mapping[str, float], time: float) -> None:
        """One step, whole; steps of a run grow, because `start` says with one number how far it is. TrackingError."""

    def finish(self, run_id: str, exit_code: int, tags: Sequence[str]) -> None:
        """The run has ended; returns once the tracker holds all of it. Raises TrackingError."""

    def address(self) -> str | None:
        """Where a person sees the runs in a browser, once that is known."""

    def close(self) -> None:
        """Release everything."""
