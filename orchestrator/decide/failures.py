"""Failures of one kind: told apart by their cause and the user's frame, never by the values in a message. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SPEAKING = (
    "exception",
    "import_error",
    "missing_file",
    "cuda_oom",
    "exit",
    "signal",
)  # the message begins with a kind
_LIMITS = ("timeout", "hang")  # the message says how long it ran: alike are those that hang at one place
_SETTINGS = 3  # that are named at most


@dataclass(frozen=True)
class Failed:
    """A trial that failed, or was lost for good."""

    trial_id: str
    cause: str
    message: str
    place: str  # the user's frame

    @property
    def fingerprint(self) -> Fingerprint:
        speaking = self.cause in _SPEAKING or (self.place and self.cause not in _LIMITS)
        kind = self.message.partition(": ")[0] if speaking else ""
        return Fingerprint(self.cause, kind, self.place)

    @property
    def line(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message or self.cause


@dataclass(frozen=True)
class Fingerprint:
    """What all failures of one kind share."""

    cause: str
    kind: str  # "KeyError", "killed by SIGSEGV"; "" where the cause says it all
    place: str


@dataclass(frozen=True)
class Group:
    """Trials that failed alike."""

    fingerprint: Fingerprint
    trials: tuple[str, ...]
    line: str  # the commonest one
    example: str  # the first trial that says it


def grouped(failed: Iterable[Failed]) -> list[Group]:
    """By fingerprint, the largest group first."""
    groups: dict[Fingerprint, list[Failed]] = {}
    for each in failed:
        groups.setdefault(each.fingerprint, []).append(each)
    found = []
    for fingerprint, members in groups.items():
        line = Counter(member.line for member in members).most_common(1)[0][0]
        example = next(member.trial_id for member in members if member.line == line)
        found.append(Group(fingerprint, tuple(member.trial_id for member in members), line, example))
    return sorted(found, key=lambda group: -len(group.trials))


def difference(members: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any, int]]:
    """The settings (key, value, in how many) that tell these trials best from others: those that all share, or one."""
    inside, outside = _counted(members), _counted(others)
    values = {(key, repr(value)): value for settings in members for key, value in settings.items()}
    scores = {
        setting: count / len(members) - (outside[setting] / len(others)) for setting, count in inside.items() if others
    }
    best = sorted((setting for setting in scores if scores[setting] > 0), key=lambda setting: -scores[setting])
    common = [setting for setting in best if inside[setting] == len(members)][:_SETTINGS]
    return [(setting[0], values[setting], inside[setting]) for setting in common or best[:1]]


def _counted(trials: Iterable[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
    return Counter((key, repr(value)) for settings in trials for key, value in settings.items())
