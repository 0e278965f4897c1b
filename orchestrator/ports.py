"""The seams: what varies behind a protocol."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.model.events import Batch
from orchestrator.model.order import Order
from orchestrator.model.rows import Due
from orchestrator.model.sweep import Resources

# Signals by which a machine announces that it is about to end what runs on it; Slurm sends the one it is told to.
ENDING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

# Seconds since the epoch. Time passes while the coordinator waits, and it waits in `Executor.poll` alone.
Clock = Callable[[], float]


class Executor(Protocol):
    """Runs attempts somewhere. `tests/executors/conformance.py` holds every executor to this."""

    def resolve(self, resources: Resources) -> Resources:
        """Numbers for "auto"."""

    def check(self, resources: Resources) -> None:
        """Raises ResourceError if an attempt of this size could never run."""

    def free(self, resources: Resources, opened: Sequence[Resources] = ()) -> bool:
        """Whether one more attempt of this size should be launched now, besides those about to be (`opened`)."""

    def launch(self, order: Order, resources: Resources) -> None:
        """Start an attempt, or have it wait for room; returns at once. Its events come from `poll`."""

    def poll(self, timeout: float) -> list[Batch]:
        """Wait for events, for at most `timeout` seconds of real time.

        The batches of an attempt are numbered from 0. Its last event is `Ended`: exactly one for each launch, whatever
        becomes of the attempt. An executor on a virtual clock does not wait, but moves its clock to the next event.
        """

    def notices(self) -> list[str]:
        """What the user should be told of the place where attempts run, since the last call: a line each."""

    def stop(self, trial_id: str, attempt: int, why: str) -> None:
        """Ask an attempt to end: SIGTERM, then SIGKILL after its grace; one that has not started never will.

        The first reason counts. Nothing happens where no such attempt is live.
        """

    def kill(self) -> None:
        """End every attempt at once, without grace."""

    def close(self) -> None:
        """Kill what still runs and release everything; no process is left."""


class TrialSource(Protocol):
    """Says which trial is next: the plan in its order, or a search that looks at what has ended."""

    def next(self) -> Due | None:
        """The next trial that waits for an attempt; None if there is none for now."""

    def give_back(self, due: Due) -> None:
        """There was no room for this one: it stays the next."""

    def again(self, trial_ids: Iterable[str]) -> None:
        """Further attempts at these trials are due: they go before the rest."""

    @property
    def exhausted(self) -> bool:
        """Whether `next` has nothing more to give, unless `again` is called."""


@dataclass(frozen=True)
class TrackedSweep:
    """What a tracker is told of a sweep when it is created."""

    name: str
    folder: Path  # the sweep's folder, where a tracker may keep files of its own
    project: Path  # where relative paths of the sweep file begin
    options: Any  # what the sweep file says of this tracker
    sync: bool = False  # the user asked for delivery now: go online even if the sweep is recorded offline


SUPERSEDED = "superseded"  # tag of a run whose trial began anew; it may turn out that it did not


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
