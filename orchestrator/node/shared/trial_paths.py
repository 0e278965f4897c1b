"""Where an attempt keeps its files: in the trial's folder if the node sees it, else in a scratch folder of the node."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.files import scratch
from orchestrator.model.order import Order

FILES, CHECKPOINTS = "files", "checkpoints"


@dataclass(frozen=True)
class TrialPaths:
    """The paths of one trial on this node. `shared`: `folder` is in the sweep's folder, which the coordinator sees."""

    folder: str
    shared: bool

    @property
    def root(self) -> Path:
        """The folder itself; it holds the other two."""
        return Path(self.folder)

    @property
    def files(self) -> Path:
        """`run.dir`."""
        return self.root / FILES

    @property
    def checkpoints(self) -> Path:
        """Where `run.save` writes."""
        return self.root / CHECKPOINTS

    def make(self, folder: Path) -> None:
        """Make one of these folders; no sweep's folder is made where there was one, which may come back."""
        if not folder.is_dir():
            if self.shared and not self.root.parent.parent.is_dir():
                raise FileNotFoundError(errno.ENOENT, "the sweep's folder was deleted or moved", self.folder)
            folder.mkdir(parents=True, exist_ok=True)


def sees(order: Order) -> bool:
    """Whether this node sees the sweep's folder. A folder with the same name on another disk has another uid."""
    if not order.folder:
        return False
    try:
        with open(os.path.join(os.path.dirname(os.path.dirname(order.folder)), "uid")) as file:
            return file.read().strip() == order.sweep_uid
    except (OSError, ValueError):
        return False


def paths_of(order: Order) -> TrialPaths:
    """The same paths for all attempts of a trial on one node, so that a retry finds what was saved."""
    if sees(order):
        return TrialPaths(os.path.abspath(order.folder), shared=True)
    return TrialPaths(str(scratch() / order.sweep_uid / order.trial_id), shared=False)
