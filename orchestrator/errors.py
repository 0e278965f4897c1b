"""What a user is told when something cannot be done: what, where, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OrchestratorError(Exception):
    """A mistake or a condition that the user can act on; printed as one message, never as a traceback.

    `what` is one sentence, `where` names the file and key, `fix` is what to do next.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what, where, fix)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  → {self.fix}" if self.fix else text


class ConfigError(OrchestratorError):
    """The sweep file, a config it composes, or an override on the command line is wrong."""


class TrainerError(OrchestratorError):
    """The trainer cannot be imported or called."""


class ResourceError(OrchestratorError):
    """No node can ever give what a trial asks for."""


class ClusterError(OrchestratorError):
    """The Ray cluster cannot be reached, or went away."""


class ManifestError(OrchestratorError):
    """A sweep's folder or manifest is missing, foreign, damaged or cannot be written."""


class LockedError(OrchestratorError):
    """Another coordinator holds the sweep."""


class TrackingError(OrchestratorError):
    """A tracker cannot be reached now; what was not delivered stays in the manifest."""


class RefusedError(TrackingError):
    """A tracker was reached, and does not take the run: trying again soon is no use."""


class NotFoundError(OrchestratorError):
    """No sweep or trial goes by that name."""


class AmbiguousError(NotFoundError):
    """Several trials go by that name."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to a misspelt one, or None if none is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None
