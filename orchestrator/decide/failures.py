"""Groups of similar failures: same cause, same error, same line of the user's code. Pure.

The values in a message do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# With these causes the message begins with the error: "KeyError: …", "killed by SIGSEGV: …".
_CAUSES_WITH_ERROR = ("exception", "import_error", "missing_file", "cuda_oom", "exit", "signal")
_LIMITS = ("timeout", "hang")  # here the message says how long the trial ran, which differs from trial to trial
_MAX_SETTINGS = 3  # how many settings are named for a group


@dataclass(frozen=True)
class Failed:
    """A trial that failed, or was lost for good."""

    trial_id: str
    cause: str
    message: str
    place: str  # the line of the user's code: "train.py:88"

    @property
    def fingerprint(self) -> Fingerprint:
        has_error = self.cause in _CAUSES_WITH_ERROR or (self.place and self.cause not in _LIMITS)
        error = self.message.partition(": ")[0] if has_error else ""
        return Fingerprint(self.cause, error, self.place)

    @property
    def line(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message or self.cause


@dataclass(frozen=True)
class Fingerprint:
    """What all failures of a group have in common."""

    cause: str
    error: str  # "KeyError", "killed by SIGSEGV"; "" if the cause says enough
    place: str


@dataclass(frozen=True)
class Group:
    """Trials that failed in the same way."""

    fingerprint: Fingerprint
    trials: tuple[str, ...]
    line: str  # the most common message, with its place
    example: str  # the first trial with this message


def grouped(failed: Iterable[Failed]) -> list[Group]:
    """Failures grouped by fingerprint, the largest group first."""
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
    """The settings that distinguish `members` best from `others`, as (key, value, how many members have it).

    Settings that all members share; if there are none, the one setting that distinguishes best.
    """
    if not others:
        return []
    inside, outside = _count_settings(members), _count_settings(others)
    values = {(key, repr(value)): value for settings in members for key, value in settings.items()}
    scores = {setting: count / len(members) - outside[setting] / len(others) for setting, count in inside.items()}
    best = sorted((setting for setting in scores if scores[setting] > 0), key=lambda setting: -scores[setting])
    common = [setting for setting in best if inside[setting] == len(members)][:_MAX_SETTINGS]
    return [(setting[0], values[setting], inside[setting]) for setting in common or best[:1]]


def _count_settings(trials: Iterable[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
    return Counter((key, repr(value)) for settings in trials for key, value in settings.items())
