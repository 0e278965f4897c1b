"""Nodes that are left alone: several trials failed there as only hardware fails, others succeed elsewhere. Pure."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.model.events import Outcome, Started
from orchestrator.model.sweep import Resources, State

SEVERAL = 3  # different trials
NODE = "ray.io/node-id"  # Ray's label of every node
SIGNALS = ("SIGBUS", "SIGSEGV", "SIGILL")
CUDA = (
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
        self.left_out: dict[str, str] = {}  # Ray's id of the node -> its name
        self._faults: dict[str, dict[str, str]] = {}  # node -> trial -> kind, since the last success there
        self._sound: set[str] = set()  # nodes that trials succeeded on
        self._harmless: set[str] = set()  # signals that came before a success on the same node: the code's own

    def take(self, trial_id: str, where: Started | None, outcome: Outcome) -> str | None:
        """An attempt has ended. What to say if its node is left out from now on."""
        if where is None or not where.node_id or where.node_id in self.left_out:
            return None
        node, faults = where.node_id, self._faults.setdefault(where.node_id, {})
        if outcome.state in (State.SUCCEEDED, State.STOPPED):
            self._harmless.update(kind for kind in faults.values() if kind in SIGNALS)
            self._sound.add(node)
            faults.clear()
            return None
        kind = hardware(outcome)
        if kind is None:
            return None
        faults[trial_id] = kind
        count = sum(kind not in self._harmless for kind in faults.values())
        if count < SEVERAL or not self._sound - {node}:
            return None
        self.left_out[node] = where.node
        return f"{where.node} is left out from now on: {count} trials in a row failed there, the last by {kind}"

    def elsewhere(self, resources: Resources) -> Resources:
        """The same, on any node but those."""
        if not self.left_out:
            return resources
        return replace(resources, labels={NODE: f"!in({','.join(self.left_out)})", **resources.labels})


def hardware(outcome: Outcome) -> str | None:
    """What failed, if a node may be to blame."""
    if outcome.cause == "lost_worker":
        return "a lost worker"
    if outcome.cause == "signal":
        return next((name for name in SIGNALS if name in outcome.message), None)
    return next((words for words in CUDA if words in outcome.message), None)
