"""What a trial asks for, in numbers, and whether any node could ever give it. Nodes are as Ray lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from orchestrator.decide import slots
from orchestrator.errors import ResourceError
from orchestrator.model.sweep import Resources

Node = dict[str, Any]


def resolve(nodes: Sequence[Node], wanted: Resources) -> Resources:
    """Numbers for "auto": one GPU where there are any, and the node's cpus divided by its slots."""
    there = [node["Resources"] for node in nodes]
    gpus = wanted.gpus
    if gpus == "auto":
        gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in there) else 0.0
    cpus = wanted.cpus
    if cpus == "auto":
        cpus = slots.cpus_per_slot(there, gpus)
    return slots.alone(list(nodes), replace(wanted, gpus=gpus, cpus=cpus))


def capacity(nodes: Sequence[Node], wanted: Resources) -> int:
    """How many trials of this size run at once; `wanted` is resolved."""
    return sum(slots.fits(node, wanted) for node in nodes)


def refusal(nodes: Sequence[Node], wanted: Resources) -> ResourceError:
    """What to tell the user when no node could ever run a trial of this size; `wanted` is resolved."""
    there = "; ".join(slots.described(node) for node in nodes) or "no node is alive"
    asked = ", ".join(f"{name} {slots.number(value)}" for name, value in slots.bundle(wanted).items() if value)
    fix = "lower sweep.resources to what a node has"
    if wanted.gpus and not any(node["Resources"].get("GPU") for node in nodes):
        fix = "sweep.resources.gpus=0 runs the trials on the CPU"
    labels = f" with labels {dict(wanted.labels)}" if wanted.labels else ""
    return ResourceError(
        f"a trial asks for {asked}{labels}, and no node has that. Nodes: {there}", where="sweep.resources", fix=fix
    )
