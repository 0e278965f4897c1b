"""Whether it is any use to go on: when the first trials all fail alike, so will the rest. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.decide.failures import Failed, Fingerprint
from orchestrator.model.events import Outcome
from orchestrator.model.sweep import State, TrialSpec


class EarlyAbort:
    """Follows how the trials of a run end. One success, ever, and there is hope."""

    def __init__(self, least: int, succeeded: bool, several: Callable[[], set[str]]) -> None:
        """`least` trials must have failed; 0: go on whatever happens. `several` tells keys with several options."""
        self._least, self._hope, self._several = least, succeeded or not least, several
        self._failed: dict[str, Failed] = {}
        self._fingerprints: set[Fingerprint] = set()
        self._options: dict[str, set[Any]] = {}  # of each group, among the trials that failed
        self._keys: set[str] | None = None

    def take(self, spec: TrialSpec, outcome: Outcome) -> None:
        """A trial's attempt has ended."""
        if outcome.state in (State.SUCCEEDED, State.STOPPED):
            self._hope = True
        if self._hope or outcome.retry or outcome.state not in (State.FAILED, State.LOST):
            return
        failed = Failed(spec.trial_id, outcome.cause, outcome.message, outcome.place)
        self._failed[spec.trial_id] = failed
        self._fingerprints.add(failed.fingerprint)
        for key, option in choices(spec).items():
            self._options.setdefault(key, set()).add(option)

    @property
    def hopeless(self) -> bool:
        """All that ended failed alike; if the sweep has several options of a group, with more than one of them."""
        if self._hope or len(self._failed) < self._least or len(self._fingerprints) != 1:
            return False
        if self._keys is None:
            self._keys = self._several()
        tried = [len(options) for key, options in self._options.items() if key in self._keys]
        return not tried or max(tried) > 1

    @property
    def verdict(self) -> str | None:
        """Why the rest is not started, in words."""
        if not self.hopeless:
            return None
        count = len(self._failed)
        first = next(iter(self._failed.values()))
        return f"{count} of {count} trials failed {'at' if first.place else 'alike:'} {first.line}"


def choices(spec: TrialSpec) -> dict[str, Any]:
    """The options of groups among what varies: a value stands in the config as it is, an option does not."""
    texts = {key: value for key, value in spec.overrides.items() if value is None or isinstance(value, str)}
    return {key: value for key, value in texts.items() if _at(spec.config, key) != value}


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return ...  # what no option is
        config = config[part]
    return config
