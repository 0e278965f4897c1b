"""Which config of a sweep is best: by the mean of the objective over its repeats. Pure.

Trials with one `config_id` are repeats of a config, with other seeds. A config is ranked if all its repeats have ended
well and have a finite objective, so that one lucky seed never wins. The others follow: first those that can still be
ranked, then those of which a repeat failed or has no value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Literal, NamedTuple

from orchestrator.model.sweep import State

ENDED_WELL = frozenset({State.SUCCEEDED.value, State.STOPPED.value})
FAILED = frozenset({State.FAILED.value, State.LOST.value})

Candidate = Sequence[Any]  # trial id, config id, state, value of the objective; None: no finite one
Group = Sequence[Candidate]  # the repeats of a config
Mode = Literal["min", "max"]


class Config(NamedTuple):
    """A config and what its repeats have reached."""

    config_id: str
    trials: tuple[str, ...]  # the best first
    ranked: bool  # all repeats have ended well, with a value
    provisional: bool  # a repeat has yet to end, and none has failed
    well: int  # repeats that ended well, with a value
    failed: int
    best: float | None  # value of the first of `trials`
    mean: float | None  # of those that ended well; if none has, of all values so far
    sd: float | None  # sample standard deviation; None of fewer than two

    @property
    def of(self) -> int:
        """How many repeats the plan has."""
        return len(self.trials)

    @property
    def repeats(self) -> str:
        """How many of its repeats count: "3 of 3", "2 of 3, 1 failed", "1 of 3, provisional"."""
        parts = [f"{self.well} of {self.of}"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        elif self.provisional:
            parts.append("provisional")
        elif not self.ranked:
            parts.append(f"{self.of - self.well} without a value")
        return ", ".join(parts)


class Ranking:
    """The configs of a plan, the best first. What is said of a config is computed when it is asked for."""

    def __init__(self, groups: Sequence[Group], mode: Mode, repeated: bool) -> None:
        self._groups, self._sign = groups, _sign(mode)
        self.repeated = repeated  # whether any config has several trials

    @property
    def best(self) -> Config | None:
        """The winner; while no config is ranked, the best of those that can still be."""
        first = _config(self._groups[0], self._sign) if self._groups else None
        return first if first is not None and first.mean is not None and (first.ranked or first.provisional) else None

    @property
    def single(self) -> str | None:
        """The trial with the best value among those that ended well. It is not the winner for that."""
        well = [
            (self._sign * value, trial_id)
            for group in self._groups
            for trial_id, _, state, value in group
            if value is not None and state in ENDED_WELL
        ]
        return min(well, key=itemgetter(0))[1] if well else None

    def configs(self) -> list[Config]:
        return [_config(group, self._sign) for group in self._groups]

    def trials(self) -> list[str]:
        """The ids of all trials in the order of their configs, the best repeat of each first."""
        if not self.repeated:
            return [group[0][0] for group in self._groups]
        return [trial_id for config in self.configs() for trial_id in config.trials]


def rank(candidates: Iterable[Candidate], mode: Mode, *, worst_first: bool = False) -> Ranking:
    """Rank the trials of a plan, which come in its order; among equals the first is the best.

    `worst_first`: the other way round, but what is not ranked still comes last.
    """
    sign = _sign(mode)
    found: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        found.setdefault(candidate[1], []).append(candidate)
    groups = list(found.values())
    towards = -sign if worst_first else sign
    places = [_place(group[0], towards) if len(group) == 1 else _group_place(group, sign, towards) for group in groups]
    order = sorted(range(len(groups)), key=places.__getitem__)
    return Ranking([groups[index] for index in order], mode, any(len(group) > 1 for group in groups))


def _sign(mode: Mode) -> float:
    return -1.0 if mode == "max" else 1.0


def _place(candidate: Candidate, sign: float) -> tuple[int, float]:
    """Where a trial stands: ended well, yet to end, failed, without a value; then by value."""
    _, _, state, value = candidate
    if value is None:
        return 3, 0.0
    return 0 if state in ENDED_WELL else 2 if state in FAILED else 1, sign * value


def _group_place(group: Group, sign: float, towards: float) -> tuple[int, float]:
    config = _config(group, sign)
    if config.mean is None:
        return 3, 0.0
    return 0 if config.ranked else 1 if config.provisional else 2, towards * config.mean


def _config(group: Group, sign: float) -> Config:
    members = sorted(group, key=lambda each: _place(each, sign))
    states = [state for _, _, state, _ in members]
    good = [value for _, _, state, value in members if value is not None and state in ENDED_WELL]
    values = good or [value for _, _, _, value in members if value is not None]
    failed = sum(state in FAILED for state in states)
    lacking = any(state in ENDED_WELL and value is None for _, _, state, value in members)
    mean = math.fsum(value / len(values) for value in values) if len(values) > 1 else values[0] if values else None
    return Config(
        config_id=members[0][1],
        trials=tuple(trial_id for trial_id, _, _, _ in members),
        ranked=len(good) == len(members),
        provisional=not failed and not lacking and any(state not in ENDED_WELL for state in states),
        well=len(good),
        failed=failed,
        best=members[0][3],
        mean=mean,
        sd=_deviation(values, mean),
    )


def _deviation(values: Sequence[float], mean: float | None) -> float | None:
    if mean is None or len(values) < 2:
        return None
    return math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - 1)
