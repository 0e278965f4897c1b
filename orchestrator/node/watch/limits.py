"""How long a trial may run, and how long it may be silent."""

from __future__ import annotations

import os

from orchestrator import naming
from orchestrator.model.order import Order

CAUSES = ("timeout", "hang")


class AttemptLimits:
    """Watches one attempt. Whatever the trial writes to its journal is a sign of life: a report, a saved state."""

    def __init__(self, order: Order, journal: int) -> None:
        self._timeout, self._heartbeat, self._journal = order.timeout, order.heartbeat, journal
        self._written = 0

    def begin(self, now: float) -> None:
        """The clocks start: when the attempt is launched, and anew when its process exists."""
        self._began = self._heard = now

    def exceeded(self, now: float) -> tuple[str, str] | None:
        """Why the attempt must end, and the evidence; None while it may go on. Cheap: one `fstat` at most."""
        if self._timeout is not None and now - self._began >= self._timeout:
            return "timeout", f"ran for {naming.duration(self._timeout)}, which is sweep.timeout"
        if self._heartbeat is None:
            return None
        written = os.fstat(self._journal).st_size
        if written != self._written:
            self._written, self._heard = written, now
        if now - self._heard < self._heartbeat:
            return None
        ran = naming.duration(now - self._began)
        return "hang", f"no report for {naming.duration(self._heartbeat)}, which is sweep.heartbeat, after {ran} in all"
