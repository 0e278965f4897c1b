"""Errors with a message for the user: what is wrong, where, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OrchestratorError(Exception):
    """A mistake or a condition that the user can do something about. It is printed as a message without a traceback.

    `what` is one sentence, `where` names the file and the key, `fix` says what to do next.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what, where, fix)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  → {self.fix}" if self.fix else text


class ConfigError(OrchestratorError):
    """The sweep file, one of its configs, or an override on the command line is wrong."""


class TrainerError(OrchestratorError):
    """The trainer cannot be imported or called."""


class ResourceError(OrchestratorError):
    """No node has the resources that a trial needs."""


class ClusterError(OrchestratorError):
    """The Ray cluster cannot be reached, or the connection to it was lost."""


class ManifestError(OrchestratorError):
    """A sweep's folder or manifest is missing, damaged, not ours, or cannot be written."""


class LockedError(OrchestratorError):
    """Another process is running the sweep."""


class TrackingError(OrchestratorError):
    """A tracker cannot be reached now. The manifest still has what was not delivered."""


class RefusedError(TrackingError):
    """A tracker answered but refused the run, so trying again soon is useless."""


class NotFoundError(OrchestratorError):
    """There is no sweep or trial with this name."""


class AmbiguousError(NotFoundError):
    """The name fits several trials."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most similar to a misspelt one; None if none is similar."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None
