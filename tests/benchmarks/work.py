"""What a trial does, under us and under every peer: one small torch operation, some sleep, a few reports."""

from __future__ import annotations

import time
from typing import Any

import torch

_before: list[str] = []


def work(seconds: float) -> float:
    """The whole training."""
    total = float(torch.ones(8).sum())
    if seconds:
        time.sleep(seconds)
    return total


def train(cfg: Any, run: Any) -> dict[str, float]:
    """Our trainer; it insists on a fresh process, and on the defaults that make trials reproducible."""
    if _before or not torch.are_deterministic_algorithms_enabled():
        raise RuntimeError(f"not isolated, or not deterministic: {_before}")
    _before.append(run.id)
    for step in range(cfg.steps):
        run.report({"loss": 1 / (step + 1)}, step=step)
        time.sleep(cfg.seconds / cfg.steps)
    return {"total": work(0.0 if cfg.steps else cfg.seconds)}
