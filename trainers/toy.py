"""A trainer that takes a second and needs only the standard library, for documentation and tests.

It minimises a quadratic function of `width` dimensions, `loss = mean(c_i * w_i**2)` with curvatures `c_i` from 1 down
to 0.1, by gradient descent with noisy gradients. It behaves like real training: a small `lr` is slow, a larger one is
fast and then noisy, and an `lr` above 1 diverges.
"""

from __future__ import annotations

import random
import time
from typing import Any


def train(cfg: Any, run: Any) -> None:
    """Run `cfg.steps` steps. Report and save after each. `cfg` is the config `conf/toy.yaml`."""
    state = run.restore() or {"step": 0, "weights": [1.0] * cfg.width}
    weights = list(state["weights"])
    for step in range(state["step"] + 1, cfg.steps + 1):
        if step == cfg.fail_at:
            raise RuntimeError(f"failed at step {step}, as fail_at says")
        time.sleep(cfg.sleep)
        weights = descend(weights, cfg.lr, noise=random.Random(f"{run.seed} {step}"))
        run.report({"loss": loss(weights)}, step=step)
        run.save({"step": step, "weights": weights}, step=step)


def curvatures(width: int) -> list[float]:
    """Evenly spaced curvatures from 1 down to 0.1."""
    return [1 - 0.9 * i / max(1, width - 1) for i in range(width)]


def loss(weights: list[float]) -> float:
    """The mean loss over the dimensions; 0 at the minimum."""
    return sum(c * w * w for c, w in zip(curvatures(len(weights)), weights, strict=True)) / len(weights)


def descend(weights: list[float], lr: float, noise: random.Random) -> list[float]:
    """One step of gradient descent. The noise depends only on seed and step, so a resumed run gets the same noise."""
    slopes = zip(weights, curvatures(len(weights)), strict=True)
    return [w - lr * (2 * c * w + noise.gauss(0, 0.1)) for w, c in slopes]
