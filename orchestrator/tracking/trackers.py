"""Which trackers there are, and which of them a sweep asks for. Light: imports none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.model.sweep import SweepSpec
from orchestrator.tracking import wandb_mode


def _never(options: Any) -> bool:
    return False


@dataclass(frozen=True)
class Kind:
    """One kind of tracker."""

    title: str  # its name in messages
    target: str  # "module:class" of a `ports.Tracker`; imported in the tracker's own process only
    by_default: bool = False  # a sweep that does not mention it has it
    turned_off: Callable[[Any], bool] = _never  # whether the environment, given the options, turns it off


TRACKERS = {  # by the key below `sweep.tracking`, which is also the name of the tracker's files
    "wandb": Kind("W&B", "orchestrator.tracking.wandb:WandbTracker", True, wandb_mode.turned_off),
    "jsonl": Kind("JSON Lines", "orchestrator.tracking.jsonl:JsonLinesTracker"),
}
ONLY_ONE_OF_0_1 = "wandb"  # version 0.1 kept its ledger in another place


def wanted(spec: SweepSpec) -> dict[str, Any]:
    """The trackers that a sweep asks for, by name, each with its options."""
    said = {name: spec.tracking.get(name, kind.by_default) for name, kind in TRACKERS.items()}
    return {name: {} if options is True else options for name, options in said.items() if options is not False}
