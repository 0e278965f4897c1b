"""What a trial asks for, in numbers, and whether any node could ever give it. Nodes are as Ray lists them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.decide import slots
from orchestrator.errors import ResourceError
from orchestrator.model.sweep import Resources

Node = dict[str, Any]


class Sizes:
    """What trials ask for, in numbers, and how many of them the nodes take at once, while nodes come and go.

    What "auto" means for GPUs stays as it was at first, and all other numbers as they were when they last fitted: when
    the last node with GPUs is lost, its trials wait for another one, and do not go on without a GPU.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self._gpus = auto_gpus(nodes)
        self._known: dict[str, tuple[Resources, int]] = {}  # by what is asked for: in numbers, how many fit at once
        self._fitted: dict[str, Resources] = {}  # the latest numbers that did
        self._missing: dict[str, Resources] = {}  # by its words: what waits for a node that is not there

    def use(self, nodes: Sequence[Node]) -> bool:
        """These are the nodes now; returns whether that is news."""
        if nodes is self.nodes:
            return False
        news = [_facts(node) for node in nodes] != [_facts(node) for node in self.nodes]
        self.nodes = nodes
        if news:
            self._known.clear()
        return news

    def of(self, resources: Resources) -> tuple[Resources, int]:
        """It in numbers, and how many of it fit at once; asked several times a launch."""
        key = repr(resources)
        if key not in self._known:
            gpus = self._gpus if resources.gpus == "auto" else resources.gpus
            wanted = resolve(self.nodes, replace(resources, gpus=gpus))
            count = capacity(self.nodes, wanted)
            if count:
                self._fitted[key] = wanted
            self._known[key] = self._fitted.get(key, wanted), count
        return self._known[key]

    def changes_of_room(self, waiting: Iterable[Resources]) -> list[str]:
        """What to tell of trials that wait: once that no node has what they ask for, and once that one has it again."""
        words = {asked(wanted): wanted for wanted in waiting}
        told = []
        for text in [text for text, wanted in self._missing.items() if capacity(self.nodes, wanted)]:
            told += self._back(text)
        for text, wanted in words.items():
            if text not in self._missing and not capacity(self.nodes, wanted):
                self._missing[text] = wanted
                told.append(
                    f"trials wait: they ask for {text}, and no node has that now. Nodes: {there(self.nodes)}. "
                    "They go on when such a node joins; Ctrl-C ends the sweep, and the same command continues it"
                )
        return told

    def started(self, wanted: Resources) -> list[str]:
        """What to tell when such a trial starts: a node that joined may take it before we hear of the node."""
        return self._back(asked(wanted)) if self._missing else []

    def _back(self, text: str) -> list[str]:
        found = self._missing.pop(text, None)
        return [f"there is a node again that has {text}: what waited for it goes on"] if found else []


def _facts(node: Node) -> tuple[Any, ...]:
    """What decides which trials fit on a node."""
    return node["Resources"], node.get("Labels")


def resolve(nodes: Sequence[Node], wanted: Resources) -> Resources:
    """Numbers for "auto": one GPU where there are any, and the node's cpus divided by its slots."""
    there = [node["Resources"] for node in nodes]
    gpus = auto_gpus(nodes) if wanted.gpus == "auto" else wanted.gpus
    cpus = wanted.cpus
    if cpus == "auto":
        cpus = slots.cpus_per_slot(there, gpus)
    return slots.alone(list(nodes), replace(wanted, gpus=gpus, cpus=cpus))


def auto_gpus(nodes: Sequence[Node]) -> float:
    """What "auto" means for GPUs here."""
    return 1.0 if any(node["Resources"].get("GPU", 0) >= 1 for node in nodes) else 0.0


def capacity(nodes: Sequence[Node], wanted: Resources) -> int:
    """How many trials of this size run at once; `wanted` is resolved."""
    return sum(slots.fits(node, wanted) for node in nodes)


def refusal(nodes: Sequence[Node], wanted: Resources) -> ResourceError:
    """What to tell the user when no node could ever run a trial of this size; `wanted` is resolved."""
    fix = "lower sweep.resources to what a node has"
    if wanted.gpus and not any(node["Resources"].get("GPU") for node in nodes):
        fix = "sweep.resources.gpus=0 runs the trials on the CPU"
    return ResourceError(
        f"a trial asks for {asked(wanted)}, and no node has that. Nodes: {there(nodes)}",
        where="sweep.resources",
        fix=fix,
    )


def asked(wanted: Resources) -> str:
    """What a trial asks for, in words; `wanted` is resolved."""
    amounts = ", ".join(f"{name} {slots.number(value)}" for name, value in slots.bundle(wanted).items() if value)
    return amounts + (f" with labels {dict(wanted.labels)}" if wanted.labels else "")


def there(nodes: Sequence[Node]) -> str:
    """The nodes in words."""
    return "; ".join(slots.described(node) for node in nodes) or "no node is alive"
