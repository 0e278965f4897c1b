"""Everything that can end an attempt before its trial ends by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from orchestrator.model.order import Order
from orchestrator.node.watch.limits import AttemptLimits
from orchestrator.node.watch.memory import MemoryWatch, NodeMemory


class Stop(NamedTuple):
    """Why an attempt must end."""

    reason: str
    evidence: str = ""
    at_once: bool = False  # without the grace time


class StopConditions:
    """A request, the order's limits, and the node's memory."""

    def __init__(self, order: Order, asked: Callable[[], str | None], journal: int, node: NodeMemory) -> None:
        self._asked = asked
        self._limits = AttemptLimits(order, journal)
        self._memory = MemoryWatch(node)

    def launched(self, now: float) -> None:
        """The zygote has the order; it may have to import the trainer first."""
        self._limits.begin(now)

    def started(self, trial: int, now: float) -> None:
        """The trial's process exists."""
        self._memory.begin(trial)
        self._limits.begin(now)

    def met(self, now: float) -> Iterator[Stop]:
        """The conditions that are met now."""
        reason = self._asked()
        if reason is not None:
            yield Stop(reason)
        exceeded = self._limits.exceeded(now)
        if exceeded is not None:
            yield Stop(*exceeded)
        evidence = self._memory.must_end(now)
        if evidence is not None:  # at once: there is no memory left to save a state with
            yield Stop("oom", evidence, at_once=True)

    def close(self) -> None:
        """Forget the trial."""
        self._memory.close()
