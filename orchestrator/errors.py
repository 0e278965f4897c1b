"""Errors with a message for the user: what is wrong, where, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterable

_CLOSE = 1 / 3  # the share of letters that may be wrong
_BEGINNING = 2  # letters; a shorter word is the beginning of too many names


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
    """The known name that a misspelt one was meant to be; None if none is close.

    Close is a name in which at most one letter in three is wrong, in upper or lower case; one that begins with what was
    written; and one whose last part was written alone: `lr` for `optimizer.lr`.
    """
    typed = name.lower()
    found = [(_distance(typed, other.lower()), other) for other in known if other != name]
    best = min(found, key=lambda pair: pair[0], default=(1.0, ""))
    return best[1] if best[0] <= _CLOSE else None


def _distance(typed: str, text: str) -> float:
    """From 0.0, the same, to 1.0, not alike."""
    longest = max(len(typed), len(text), 1)
    part = len(typed) >= _BEGINNING and (text.startswith(typed) or re.split(r"[./]", text)[-1] == typed)
    limit = _CLOSE if part else 1.0
    if abs(len(typed) - len(text)) > _CLOSE * longest:
        return limit
    return min(limit, _edits(typed, text) / longest)


def _edits(one: str, other: str) -> int:
    """How many letters were added, left out, replaced, or exchanged with their neighbour."""
    rows = [list(range(len(other) + 1))]
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, mark in enumerate(other, 1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != mark))
            if i > 1 and j > 1 and (letter, one[i - 2]) == (other[j - 2], mark):
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1]
