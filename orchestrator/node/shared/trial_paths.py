"""Where an attempt keeps its files: the trial's folder where the node sees it, else a scratch folder there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.files import scratch
from orchestrator.model.order import Order

FILES, CHECKPOINTS = "files", "checkpoints"


@dataclass(frozen=True)
class TrialPaths:
    """`folder` holds `files/` (`run.dir`) and `checkpoints/`. `shared`: the coordinator sees them there."""

    folder: str
    shared: bool

    @property
    def root(self) -> Path:
        """The folder."""
        return Path(self.folder)

    @property
    def files(self) -> Path:
        """`run.dir`."""
        return self.root / FILES

    @property
    def checkpoints(self) -> Path:
        """Where `run.save` writes."""
        return self.root / CHECKPOINTS


def sees(order: Order) -> bool:
    """Whether the sweep's folder is on this node: a folder of the same name elsewhere has another uid."""
    if not order.folder:
        return False
    try:
        with open(os.path.join(os.path.dirname(os.path.dirname(order.folder)), "uid")) as file:
            return file.read().strip() == order.sweep_uid
    except (OSError, ValueError):
        return False


def paths_of(order: Order) -> TrialPaths:
    """The same place for every attempt of a trial on one node, so that a retry finds what was saved."""
    if sees(order):
        return TrialPaths(os.path.abspath(order.folder), shared=True)
    return TrialPaths(str(scratch() / order.sweep_uid / order.trial_id), shared=False)
