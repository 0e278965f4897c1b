"""The time limits of an attempt: how long it may run, and how long without a report."""

from __future__ import annotations

import os

from orchestrator import naming
from orchestrator.model.order import Order

CAUSES = ("timeout", "hang")


class AttemptLimits:
    """Checks one attempt against its limits. Whatever is written to its journal is a sign of life, not reports only."""

    def __init__(self, order: Order, journal: int) -> None:
        self._timeout, self._heartbeat, self._journal = order.timeout, order.heartbeat, journal
        self._journal_size = 0

    def begin(self, now: float) -> None:
        """Start the clocks: when the attempt is launched, and again when its process exists."""
        self._began = self._last_sign = now

    def exceeded(self, now: float) -> tuple[str, str] | None:
        """Why the attempt must end, and the evidence; None if it may go on. Costs one `fstat` at most."""
        if self._timeout is not None and now - self._began >= self._timeout:
            return "timeout", f"ran for {naming.duration(self._timeout)}, which is sweep.timeout"
        if self._heartbeat is None:
            return None
        size = os.fstat(self._journal).st_size
        if size != self._journal_size:
            self._journal_size, self._last_sign = size, now
        if now - self._last_sign < self._heartbeat:
            return None
        ran = naming.duration(now - self._began)
        return "hang", f"no report for {naming.duration(self._heartbeat)}, which is sweep.heartbeat, after {ran} in all"
