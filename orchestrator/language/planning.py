"""From a sweep file to its trials: wires the reader, the space, the search and the rendering."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import naming
from orchestrator.errors import ConfigError
from orchestrator.language.compose import Composition
from orchestrator.language.identity import IdSet
from orchestrator.language.source import Source, opened
from orchestrator.language.trial_renderer import TrialRenderer
from orchestrator.model.sweep import SweepSpec, TrialSpec
from orchestrator.search.methods import METHODS
from orchestrator.search.space import Assignment, Key, Space

_SHAPES = 2048  # kept at a time
_PATIENCE = 10_000  # draws in a row that bring nothing new, before a random search gives up


@dataclass(frozen=True)
class PlanSummary:
    """What one pass over the trials has found."""

    total: int
    excluded: int
    duplicates: int
    by_choice: Mapping[str, Mapping[str, int]]  # group -> option -> trials
    warnings: tuple[str, ...]


@dataclass
class _Pass:
    """The account of one pass."""

    seen: IdSet = field(default_factory=IdSet)
    excluded: int = 0
    duplicates: int = 0
    matched: set[int] = field(default_factory=set)  # entries of `exclude`
    tally: Counter[tuple[tuple[str, str], ...]] = field(default_factory=Counter)
    warnings: dict[str, None] = field(default_factory=dict)


class SweepPlan:
    """A sweep file, read: its checked `sweep` section and its trials."""

    def __init__(self, source: Source, space: Space) -> None:
        self.spec: SweepSpec = source.spec
        self.file: Path = source.file
        self.overrides: tuple[str, ...] = source.overrides
        self._source, self._space = source, space
        self._seed = Key(self.spec.seed, where="sweep.repeats")
        self._compositions: OrderedDict[Any, Composition] = OrderedDict()
        self._shapes: OrderedDict[Any, TrialRenderer] = OrderedDict()
        self._summary: PlanSummary | None = None

    def trials(self) -> Iterator[TrialSpec]:
        """The trials, lazily; the same ones in the same order each time, each once."""
        account = _Pass()
        method = METHODS[self.spec.search.method]
        for repeat in range(self.spec.repeats):
            yield from self._once(method(self._space, self.spec.search.seed), repeat, account)
        if account.excluded and not len(account.seen):
            raise self._nothing_left()
        self._summary = self._summed(account)

    def summary(self) -> PlanSummary:
        """Of the last complete pass over the trials."""
        if self._summary is None:
            for _ in self.trials():
                pass
        assert self._summary is not None
        return self._summary

    def first(self) -> TrialSpec:
        """One trial: every axis at its first value (drawn, where it is an interval)."""
        account = _Pass()
        method = METHODS["random" if self._space.size() is None else "grid"]
        for trial in self._once(method(self._space, self.spec.search.seed), 0, account):
            return trial
        raise self._nothing_left()

    def _nothing_left(self) -> ConfigError:
        return ConfigError("every trial is excluded", where=f"{self.file}: sweep.exclude", fix="remove an entry")

    # ------------------------------------------------------------ one pass

    def _once(self, assignments: Iterator[Assignment], repeat: int, account: _Pass) -> Iterator[TrialSpec]:
        """The trials of one repeat; those excluded or already there do not count towards a limit."""
        accepted, idle, limit = 0, 0, self.spec.search.trials
        endless = self._space.size() is None
        for assignment in assignments:
            trial = self._trial(assignment, repeat, account)
            if trial is None:
                idle += 1
                if endless and idle >= _PATIENCE:
                    return
                continue
            idle = 0
            accepted += 1
            yield trial
            if accepted == limit:
                return

    def _trial(self, assignment: Assignment, repeat: int, account: _Pass) -> TrialSpec | None:
        shape = self._shape(assignment, account)
        if self.spec.repeats > 1:
            assignment = (*assignment, (self._seed, shape.base_seed(assignment) + repeat))
            shape = self._shape(assignment, account)
        trial = shape.trial(assignment, account.matched)
        if trial is None:
            account.excluded += 1
            return None
        if not account.seen.add(trial.trial_id):
            account.duplicates += 1
            return None
        account.tally[shape.choice] += 1
        return trial

    def _shape(self, assignment: Assignment, account: _Pass) -> TrialRenderer:
        mark = tuple(
            [
                key if not key.group else (key, value if type(value) is not list else tuple(value))
                for key, value in assignment
            ]
        )
        shape = self._shapes.get(mark)
        if shape is None:
            shape = TrialRenderer(self.spec, self._composition(assignment), assignment, str(self.file))
            self._shapes[mark] = shape
            if len(self._shapes) > _SHAPES:
                self._shapes.popitem(last=False)
        if shape.warnings:
            account.warnings.update(dict.fromkeys(shape.warnings))
        return shape

    def _composition(self, assignment: Assignment) -> Composition:
        groups = [(key, value) for key, value in assignment if key.group]
        mark = tuple((key.name, _hashable(value)) for key, value in groups)
        if mark not in self._compositions:
            self._compositions[mark] = self._source.compose(groups)
            if len(self._compositions) > _SHAPES // 8:
                self._compositions.popitem(last=False)
        return self._compositions[mark]

    def _summed(self, account: _Pass) -> PlanSummary:
        by_choice: dict[str, dict[str, int]] = {}
        for choice, count in account.tally.items():
            for group, option in choice:
                options = by_choice.setdefault(group, {})
                options[option] = options.get(option, 0) + count
        warnings = dict.fromkeys([*self._source.composer.warnings, *account.warnings])
        for index, entry in enumerate(self.spec.exclude):
            if index not in account.matched:
                warnings[f"sweep.exclude[{index}] matches no trial: {_words(entry)}"] = None
        return PlanSummary(len(account.seen), account.excluded, account.duplicates, by_choice, tuple(warnings))


def _words(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={naming.value(item)}" for key, item in entry.items())


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def load(file: Path, overrides: Sequence[str] = (), config_dir: Path | None = None) -> SweepPlan:
    """Read a sweep file, with the command line's overrides; raises ConfigError."""
    source = opened(Path(file), tuple(overrides), config_dir)
    space = source.space()
    _check(source, space)
    return SweepPlan(source, space)


def single(file: Path, overrides: Sequence[str] = (), config_dir: Path | None = None) -> tuple[SweepSpec, TrialSpec]:
    """One trial of a sweep: overrides fixed, and every other axis at its first value."""
    plan = load(file, overrides, config_dir)
    return plan.spec, plan.first()


def _check(source: Source, space: Space) -> None:
    """What only the whole space can tell."""
    spec = source.spec
    for key in space.all_keys():
        where = f"{source.file}: {key.where}"
        if key.name.split(".")[0] in ("sweep", "hydra") or key.name.startswith("hydra/"):
            raise ConfigError(f"{key.name!r} is no part of a trial's config, and cannot be swept", where=where)
        if key.name == spec.seed and spec.repeats > 1:
            raise ConfigError(
                f"repeats beside an axis on the seed's key {spec.seed!r}",
                where=f"{source.file}: sweep.repeats",
                fix="keep one of the two",
            )
    for key in space.intervals() if spec.search.method == "grid" else ():
        raise ConfigError(
            f"{key.name!r} is an interval, and a grid has no values for it",
            where=f"{source.file}: {key.where}",
            fix="draw from it, search: {method: random, trials: 20}; or list values",
        )
