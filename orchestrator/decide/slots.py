"""How many trials fit on the nodes of a cluster. Pure: a node is a mapping in the form that Ray lists nodes in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.model.sweep import Resources


def cpus_per_slot(nodes: list[dict[str, Any]], gpus: float) -> float:
    """The CPUs of a node divided by its GPU slots; the smallest such share among the nodes."""
    shares = []
    for node in nodes:
        count = gpu_slots(node.get("GPU", 0), gpus)
        if count:
            shares.append(node.get("CPU", 1) / count)
    share = min(shares, default=1.0) if gpus else 1.0
    return float(math.floor(share)) if share >= 1 else math.floor(share * 1000) / 1000


def gpu_slots(available: float, wanted: float) -> int:
    """How many trials with `wanted` GPUs fit. A fraction is always a part of one GPU."""
    if not wanted:
        return 0
    if wanted < 1:
        return int(available) * int(1 / wanted + 1e-9)
    return int((available + 1e-9) // wanted)


def first_gpus(available: Sequence[str], written: Mapping[str, Any]) -> Sequence[str]:
    """The first GPUs, as many as one trial gets; none if that number differs from trial to trial.

    `written`: `sweep.resources` as it stands in the sweep file.
    """
    wanted = written.get("gpus", "auto")
    if wanted == "auto":
        return available[:1]
    return available[: math.ceil(wanted)] if isinstance(wanted, (int, float)) else ()


def alone(nodes: list[dict[str, Any]], wanted: Resources) -> Resources:
    """Resources that keep other trials away: whole GPUs, or all CPUs of the largest node on which the trial fits."""
    if wanted.alone == "gpu":
        return replace(wanted, gpus=float(math.ceil(float(wanted.gpus))))
    if wanted.alone == "node" and wanted.cpus:
        cpus = [node["Resources"].get("CPU", 0.0) for node in nodes if fits(node, wanted)]
        return replace(wanted, cpus=max(cpus, default=wanted.cpus))
    return wanted


def bundle(wanted: Resources) -> dict[str, float]:
    """The amounts for Ray to reserve, under Ray's names."""
    return {"GPU": float(wanted.gpus), "CPU": float(wanted.cpus), "memory": float(wanted.memory), **wanted.custom}


def fits(node: dict[str, Any], wanted: Resources) -> int:
    """How many trials of this size the node can run at once."""
    labels = node.get("Labels", {})
    if not all(matches(labels.get(key), value) for key, value in wanted.labels.items()):
        return 0
    counts = []
    for name, value in bundle(wanted).items():
        if value:
            available = node["Resources"].get(name, 0)
            counts.append(gpu_slots(available, value) if name == "GPU" else int((available + 1e-9) // value))
    return min(counts, default=1)


def matches(label: str | None, wanted: str) -> bool:
    """Whether a node's label matches one of Ray's label selectors: `x`, `!x`, `in(x,y)`, `!in(x,y)`."""
    negated, rest = wanted.startswith("!"), wanted.removeprefix("!")
    inside = rest[3:-1] if rest.startswith("in(") and rest.endswith(")") else rest
    return (label in [name.strip() for name in inside.split(",")]) != negated


def described(node: dict[str, Any]) -> str:
    """A node in words: "worker-1 (8 cpus, 4 gpus, 64 GiB)"."""
    resources = node["Resources"]
    parts = [f"{number(resources.get('CPU', 0))} cpus", f"{number(resources.get('GPU', 0))} gpus"]
    if "memory" in resources:
        parts.append(f"{resources['memory'] / 2**30:.0f} GiB")
    known = {"CPU", "GPU", "memory", "object_store_memory"}
    parts += [
        f"{name} {number(value)}"
        for name, value in resources.items()
        if name not in known and not name.startswith(("node:", "accelerator_type:"))
    ]
    return f"{node['NodeManagerHostname']} ({', '.join(parts)})"


def number(value: float) -> str:
    return f"{value:g}"
