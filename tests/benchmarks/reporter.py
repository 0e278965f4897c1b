"""A trainer that reports as fast as it can, once all trials are there, and tells what a report costs it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def train(cfg: Any, run: Any) -> dict[str, float]:
    """The last row: median and slowest `run.report`, in microseconds."""
    meet = Path(cfg.meet)
    (meet / run.id).touch()
    while len(os.listdir(meet)) < cfg.trials:
        time.sleep(0.02)
    costs = []
    for step in range(cfg.reports):
        before = time.perf_counter_ns()
        run.report({"loss": 1.0 / (step + 1), "step": float(step)}, step=step)
        costs.append(time.perf_counter_ns() - before)
    costs.sort()
    return {"median_us": costs[len(costs) // 2] / 1000, "slowest_us": costs[-1] / 1000}
