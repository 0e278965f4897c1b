"""Whether a sweep should end early: what the first trials all lack, the others will lack too. Pure.

Either all have failed in the same way, or all have ended well without ever having reported the objective.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.decide.failures import Failed, Fingerprint
from orchestrator.errors import nearest
from orchestrator.model.events import Outcome
from orchestrator.model.sweep import Objective, State, TrialSpec

_ABSENT = object()
_NAMED = 5  # metrics that a message names


@dataclass(frozen=True)
class Verdict:
    """Why the remaining trials are not started, and what the user can do, in words."""

    reason: str
    fix: str


@dataclass
class _Alike:
    """Trials that have ended in a way that the others may share."""

    trials: set[str] = field(default_factory=set)
    options: dict[str, set[Any]] = field(default_factory=dict)  # group -> the options of it that these trials have

    def add(self, spec: TrialSpec) -> None:
        self.trials.add(spec.trial_id)
        for key, option in group_options(spec).items():
            self.options.setdefault(key, set()).add(option)


class EarlyAbort:
    """Follows how the trials of a run end."""

    def __init__(
        self,
        minimum: int,
        succeeded: bool,
        groups_with_options: Callable[[], set[str]],
        objective: Objective | None = None,
        reported: bool = False,
    ) -> None:
        """`minimum`: how many trials must have ended alike; 0: never end early.

        `succeeded`, `reported`: a trial has succeeded, or has reported the objective, before. `groups_with_options`
        gives the keys of the groups for which the sweep has more than one option.
        """
        self._minimum, self._groups_with_options, self._objective = minimum, groups_with_options, objective
        self._failed = None if succeeded or not minimum else _Alike()
        self._unreported = None if reported or not minimum or objective is None else _Alike()
        self._first: Failed | None = None
        self._fingerprints: set[Fingerprint] = set()
        self._metrics: dict[str, None] = {}  # that were reported without the objective
        self._groups: set[str] | None = None

    def record(
        self,
        spec: TrialSpec,
        outcome: Outcome,
        metrics: Iterable[str] = (),
        running: Iterable[Iterable[str]] = (),
    ) -> None:
        """Take note of an attempt that has ended. The metrics that it has reported, and those of trials that run."""
        ended_well = outcome.state in (State.SUCCEEDED, State.STOPPED)
        if ended_well:
            self._failed = None
        if self._unreported is not None and self._objective is not None:
            if any(self._objective.metric in reported for reported in (metrics, *running)):
                self._unreported = None
            elif ended_well:
                self._unreported.add(spec)
                self._metrics.update(dict.fromkeys(metrics))
        if self._failed is None or outcome.retry or outcome.state not in (State.FAILED, State.LOST):
            return
        failed = Failed(spec.trial_id, outcome.cause, outcome.message, outcome.place)
        self._first = self._first or failed
        self._failed.add(spec)
        self._fingerprints.add(failed.fingerprint)

    @property
    def due(self) -> bool:
        """Whether enough trials have ended, and all of them alike."""
        return self._all_failed or self._enough(self._unreported)

    @property
    def _all_failed(self) -> bool:
        return len(self._fingerprints) == 1 and self._enough(self._failed)

    def _enough(self, alike: _Alike | None) -> bool:
        """If a group has several options, trials with at least two options of one group must have ended so."""
        if alike is None or len(alike.trials) < self._minimum:
            return False
        if self._groups is None:
            self._groups = self._groups_with_options()
        tried = [len(options) for key, options in alike.options.items() if key in self._groups]
        return not tried or max(tried) > 1

    @property
    def verdict(self) -> Verdict | None:
        """Why the remaining trials are not started; None if they are."""
        if self._all_failed and self._first and self._failed:
            count = len(self._failed.trials)
            how = "at" if self._first.place else "alike:"
            return Verdict(
                f"{count} of {count} trials failed {how} {self._first.line}",
                "fix it, then run the same command again with --rerun failed",
            )
        if self._enough(self._unreported) and self._unreported and self._objective:
            count, metric = len(self._unreported.trials), self._objective.metric
            return Verdict(
                f"{count} of {count} trials ended without a report of {metric!r}, which is sweep.objective.metric; "
                + (f"they reported {named(self._metrics)}" if self._metrics else "they reported nothing at all"),
                _what_to_write(metric, list(self._metrics)),
            )
        return None


def unreported(objective: Objective | None, metrics: Iterable[str]) -> str:
    """What to tell of a trial that succeeded and cannot be compared; empty if it can.

    Its trainer may have returned early, or misspelt the metric.
    """
    names = list(metrics)
    if objective is None or objective.metric in names:
        return ""
    text = f"succeeded without a report of {objective.metric!r}, which is sweep.objective"
    return text + (f"; it reported {named(names)}: name one of these as sweep.objective.metric" if names else "")


def named(metrics: Iterable[str]) -> str:
    """The first names of metrics: "'loss', 'acc', …"."""
    names = list(metrics)
    return ", ".join(map(repr, names[:_NAMED])) + ", …" * (len(names) > _NAMED)


def _what_to_write(metric: str, reported: list[str]) -> str:
    if not reported:
        return f"have the trainer report it: run.report({{{metric!r}: …}}); then the same command with --rerun stale"
    likely = nearest(metric, reported) or reported[0]
    return (
        f"write sweep.objective.metric={likely} in the command, or `metric: {likely}` in the sweep file;\n"
        f"    or have the trainer report {metric!r}, and run the same command with --rerun stale"
    )


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
