"""What trials that are forked from one zygote have in common, and how their environments differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.model.order import Order
from orchestrator.model.trainer import Trainer


@dataclass(frozen=True)
class ZygoteSpec:
    """What all trials of one zygote have in common. It is all that the zygote knows when it imports the trainer."""

    trainer: Trainer
    import_path: tuple[str, ...]
    cwd: str
    gpus: int  # how many a trial sees; which ones differs from trial to trial
    start: Literal["fork", "spawn"]
    deterministic: bool
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # variables of the user's shell: perhaps secrets

    @classmethod
    def of(cls, order: Order, gpus: Sequence[str]) -> ZygoteSpec:
        deterministic = order.deterministic != "off"
        return cls(order.trainer, order.import_path, order.cwd, len(gpus), order.start, deterministic, order.env)


def shell_variables(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Those of these variables that this process has, with their values: trials get them; nothing writes them down."""
    return tuple((name, os.environ[name]) for name in names if name in os.environ)


def trial_environment(threads: int, gpus: Sequence[str] | None) -> dict[str, str]:
    """The environment variables that differ between trials of one zygote. With `gpus=None` a trial sees all GPUs."""
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    visible = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    return {**dict.fromkeys(pools, str(threads)), **visible}
