"""Where an attempt runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """A node, and the GPUs of it that the attempt holds."""

    node: str  # host name
    node_id: str = ""  # Ray's id of the node; "" without Ray
    gpus: tuple[str, ...] = ()  # ids for CUDA_VISIBLE_DEVICES
    gpu_uuids: tuple[str, ...] = ()  # of the same GPUs, where the driver tells
