"""What trials have in common that are forked from one warm process, and what differs between them before they begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.model.order import Order
from orchestrator.model.trainer import Trainer


@dataclass(frozen=True)
class ZygoteSpec:
    """What all trials of one zygote have in common, and all that is known when it imports."""

    trainer: Trainer
    import_path: tuple[str, ...]
    cwd: str
    gpus: int  # how many they see
    start: Literal["fork", "spawn"]
    deterministic: bool

    @classmethod
    def of(cls, order: Order, gpus: Sequence[str]) -> ZygoteSpec:
        deterministic = order.deterministic != "off"
        return cls(order.trainer, order.import_path, order.cwd, len(gpus), order.start, deterministic)


def trial_environment(threads: int, gpus: Sequence[str] | None) -> dict[str, str]:
    """What differs between the environments of two trials of one zygote; None: whatever GPUs there are."""
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    visible = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    return {**dict.fromkeys(pools, str(threads)), **visible}
