"""Whether a sweep should end early: when the first trials all fail in the same way, the others will too. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.decide.failures import Failed, Fingerprint
from orchestrator.model.events import Outcome
from orchestrator.model.sweep import State, TrialSpec

_ABSENT = object()


class EarlyAbort:
    """Follows how the trials of a run end. After one success, the sweep is never ended early."""

    def __init__(self, minimum: int, succeeded: bool, groups_with_options: Callable[[], set[str]]) -> None:
        """`minimum`: how many trials must have failed; 0: never end early. `succeeded`: a trial has succeeded before.

        `groups_with_options` gives the keys of the groups for which the sweep has more than one option.
        """
        self._minimum, self._groups_with_options = minimum, groups_with_options
        self._disabled = succeeded or not minimum
        self._failed: dict[str, Failed] = {}
        self._fingerprints: set[Fingerprint] = set()
        self._options: dict[str, set[Any]] = {}  # group -> the options of it that failed
        self._groups: set[str] | None = None

    def record(self, spec: TrialSpec, outcome: Outcome) -> None:
        """Take note of an attempt that has ended."""
        if outcome.state in (State.SUCCEEDED, State.STOPPED):
            self._disabled = True
        if self._disabled or outcome.retry or outcome.state not in (State.FAILED, State.LOST):
            return
        failed = Failed(spec.trial_id, outcome.cause, outcome.message, outcome.place)
        self._failed[spec.trial_id] = failed
        self._fingerprints.add(failed.fingerprint)
        for key, option in group_options(spec).items():
            self._options.setdefault(key, set()).add(option)

    @property
    def due(self) -> bool:
        """Whether enough trials have ended and all have failed in the same way.

        If a group has several options, at least two options of one group must have failed.
        """
        if self._disabled or len(self._failed) < self._minimum or len(self._fingerprints) != 1:
            return False
        if self._groups is None:
            self._groups = self._groups_with_options()
        tried = [len(options) for key, options in self._options.items() if key in self._groups]
        return not tried or max(tried) > 1

    @property
    def reason(self) -> str | None:
        """Why the remaining trials are not started, in words; None if they are."""
        if not self.due:
            return None
        count = len(self._failed)
        first = next(iter(self._failed.values()))
        return f"{count} of {count} trials failed {'at' if first.place else 'alike:'} {first.line}"


def group_options(spec: TrialSpec) -> dict[str, Any]:
    """The overrides that choose an option of a group.

    The config has a plain value under the same key; the name of an option does not occur there.
    """
    texts = {key: value for key, value in spec.overrides.items() if value is None or isinstance(value, str)}
    return {key: value for key, value in texts.items() if _lookup(spec.config, key) != value}


def _lookup(config: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return _ABSENT
        config = config[part]
    return config
