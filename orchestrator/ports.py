"""The seams, each with more than one honest implementation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from orchestrator.model import Batch, Order, Resources


class Executor(Protocol):
    """Runs attempts somewhere: Ray, or this process."""

    def resolve(self, resources: Resources) -> Resources:
        """Numbers for "auto"."""

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


class Tracker(Protocol):
    """A place outside that shows runs. Everything it gets can be replayed from the manifest."""

    def start(self, run_id: str, trial: Mapping[str, Any]) -> int:
        """Open or continue a run; returns the first step it does not have yet."""

    def log(self, run_id: str, step: int, metrics: Mapping[str, float], time: float) -> None:
        """One step, whole; steps of a run grow."""

    def finish(self, run_id: str, exit_code: int, tags: Sequence[str]) -> None:
        """The run has ended; returns once the tracker holds all of it."""

    def close(self) -> None:
        """Release everything."""
