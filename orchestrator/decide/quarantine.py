"""Nodes that get no more trials: several trials failed there as if the hardware were broken. Pure.

A node is quarantined only if trials succeed on another node.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.model.events import Outcome, Started
from orchestrator.model.sweep import Resources, State

LIMIT = 3  # different trials that fail on one node, without a success in between
NODE_LABEL = "ray.io/node-id"  # Ray sets it on every node
SIGNALS = ("SIGBUS", "SIGSEGV", "SIGILL")
CUDA_ERRORS = (
    "uncorrectable ECC",
    "hardware stack error",
    "fallen off the bus",
    "no CUDA-capable device",
    "CUDA-capable device(s) is/are busy or unavailable",
    "Unable to determine the device handle",
)


class Quarantine:
    """Follows how attempts end on each node of a run."""

    def __init__(self) -> None:
        self.nodes: dict[str, str] = {}  # the quarantined ones: Ray's id -> host name
        self._faults: dict[str, dict[str, str]] = {}  # node -> trial -> fault, since the node's last success
        self._nodes_with_success: set[str] = set()
        # Signals that were followed by a success on the same node: the trainer's code causes them, not the hardware.
        self._signals_of_code: set[str] = set()

    def record(self, trial_id: str, where: Started | None, outcome: Outcome) -> str | None:
        """Take note of an attempt that has ended; a message if its node is quarantined because of it."""
        if where is None or not where.node_id or where.node_id in self.nodes:
            return None
        node, faults = where.node_id, self._faults.setdefault(where.node_id, {})
        if outcome.state in (State.SUCCEEDED, State.STOPPED):
            self._signals_of_code.update(fault for fault in faults.values() if fault in SIGNALS)
            self._nodes_with_success.add(node)
            faults.clear()
            return None
        last = hardware_fault(outcome)
        if last is None:
            return None
        faults[trial_id] = last
        count = sum(fault not in self._signals_of_code for fault in faults.values())
        if count < LIMIT or not self._nodes_with_success - {node}:
            return None
        self.nodes[node] = where.node
        return f"{where.node} gets no more trials: {count} in a row failed there, the last one with {last}"

    def avoid(self, resources: Resources) -> Resources:
        """The same resources, with a label that excludes the quarantined nodes."""
        if not self.nodes:
            return resources
        return replace(resources, labels={NODE_LABEL: f"!in({','.join(self.nodes)})", **resources.labels})


def hardware_fault(outcome: Outcome) -> str | None:
    """The fault that an outcome points to, if the hardware of the node may have caused it."""
    if outcome.cause == "lost_worker":
        return "a lost worker"
    if outcome.cause == "signal":
        return next((name for name in SIGNALS if name in outcome.message), None)
    return next((words for words in CUDA_ERRORS if words in outcome.message), None)
