"""The time, without the jumps of a clock that is set while something runs."""

from __future__ import annotations

import time
from collections.abc import Callable


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # goes on while the machine sleeps


def steady(wall: Callable[[], float] = time.time, passed: Callable[[], float] = _since_boot) -> Callable[[], float]:
    """A clock in seconds since the epoch: its times can be subtracted, whatever is done to the machine's clock."""
    start = wall() - passed()
    return lambda: start + passed()
