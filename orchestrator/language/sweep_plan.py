"""The trials of a sweep file: connects the axes, the search and the rendering of configs."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from orchestrator import naming
from orchestrator.errors import ConfigError
from orchestrator.language import hydra_values
from orchestrator.language.compose import Composition
from orchestrator.language.config_errors import MayNeedCode, suggest_key
from orchestrator.language.hydra_facts import HydraFacts
from orchestrator.language.hydra_values import Section
from orchestrator.language.identity import IdSet
from orchestrator.language.plain_data import given_as_text, with_values
from orchestrator.language.shown import known
from orchestrator.language.source import Request, Source, open_source
from orchestrator.language.trial_renderer import TrialRenderer
from orchestrator.model.sweep import SweepSpec, TrialSpec
from orchestrator.search.methods import METHODS
from orchestrator.search.space import Assignment, Key, Space

_MAX_RENDERERS = 2048  # kept in memory
_MAX_COMPOSITIONS = 256
_MAX_FUTILE_DRAWS = 10_000  # a random search ends after so many draws in a row without a new trial


@dataclass(frozen=True)
class PlanSummary:
    """The result of one pass over the trials."""

    total: int
    excluded: int
    duplicates: int
    by_choice: Mapping[str, Mapping[str, int]]  # group -> option -> trials
    warnings: tuple[str, ...]

    def with_warning(self, text: str) -> PlanSummary:
        """The same, with one warning more, as the first."""
        return replace(self, warnings=(text, *self.warnings))


@dataclass
class _Tally:
    """What one pass over the trials has counted so far."""

    seen: IdSet = field(default_factory=IdSet)
    excluded: int = 0
    duplicates: int = 0
    matched: set[int] = field(default_factory=set)  # indices of the entries of `exclude` that matched a trial
    keys_met: set[str] = field(default_factory=set)  # those keys of `exclude` that some config has
    by_choice: Counter[tuple[tuple[str, str], ...]] = field(default_factory=Counter)
    warnings: dict[str, None] = field(default_factory=dict)


class SweepPlan:
    """A sweep file that has been read: its checked `sweep` section and its trials."""

    otherwise: Callable[[MayNeedCode], SweepPlan] | None
    options: tuple[str, ...] = ()  # of the command line, which it has again when the sweep goes on

    def __init__(
        self,
        source: Source,
        space: Space,
        resolvers: Collection[str] = (),
        otherwise: Callable[[MayNeedCode], SweepPlan] | None = None,
    ) -> None:
        """`resolvers`: those that only the trainer's functions register.

        `otherwise`: the plan to go on with, if a config needs more of the trainer's code.
        """
        self.otherwise = otherwise
        self._other: SweepPlan | None = None
        self.spec: SweepSpec = source.spec
        self.file: Path = source.file
        self.overrides: tuple[str, ...] = source.overrides
        self._source, self._space = source, space
        self._seed = Key(self.spec.seed, where="sweep.repeats")
        self._compositions: OrderedDict[Any, Composition] = OrderedDict()
        self.renderers: OrderedDict[Any, TrialRenderer] = OrderedDict()
        self._summary: PlanSummary | None = None
        self._resolvers = resolvers
        self._section: Section = {}  # `hydra`, of the first trial
        if source.uses_hydra():
            groups = _groups(self._first_assignment())
            facts = source.hydra(groups, self._composition(groups))
            self._section = facts.config
            env = tuple(dict.fromkeys([*self.spec.env, *facts.config["job"]["env_copy"]]))
            self.spec = replace(self.spec, hydra=source.hydra_of_sweep(facts.config), env=env)

    def trials(self) -> Iterator[TrialSpec]:
        """The trials, lazily, each once. Every call gives the same trials in the same order."""
        done = 0
        if self._other is None:
            try:
                for trial in self._trials():
                    yield trial
                    done += 1
                return
            except MayNeedCode as problem:
                self._go_on_elsewhere(problem)
        assert self._other is not None
        yield from islice(self._other.trials(), done, None)

    def _go_on_elsewhere(self, problem: MayNeedCode) -> None:
        if self.otherwise is None:
            raise problem
        self._other = self.otherwise(problem)

    def _trials(self) -> Iterator[TrialSpec]:
        tally = _Tally()
        method = METHODS[self.spec.search.method]
        for repeat in range(self.spec.repeats):
            yield from self._one_repeat(method(self._space, self.spec.search.seed), repeat, tally)
        self._check_exclude(tally)
        if tally.excluded and not len(tally.seen):
            raise self._nothing_left()
        self._summary = self._summarise(tally)

    def summary(self) -> PlanSummary:
        """The summary of the last complete pass over the trials; makes a pass if there was none."""
        if self._summary is None:
            for _ in self.trials():
                pass
        if self._other is not None:
            return self._other.summary()
        assert self._summary is not None
        return self._summary

    def first_trial(self) -> TrialSpec:
        """One trial, with every axis at its first value. If an axis is an interval, all values are drawn."""
        if self._other is not None:
            return self._other.first_trial()
        try:
            for trial in self._one_repeat(self._assignments(), 0, _Tally()):
                return trial
        except MayNeedCode as problem:
            self._go_on_elsewhere(problem)
            return self.first_trial()
        raise self._nothing_left()

    def shown(self, trial: TrialSpec) -> Any:
        """A trial's config, with those references resolved that are known before it starts."""
        if not trial.references or not trial.hydra:
            return trial.config
        section = hydra_values.section(self.spec.hydra, trial.told())
        return with_values(trial.config, known(trial.config, trial.references, section, self.spec.secrets))

    def _assignments(self) -> Iterator[Assignment]:
        method = METHODS["random" if self._space.size() is None else "grid"]
        return method(self._space, self.spec.search.seed)

    def _first_assignment(self) -> Assignment:
        return next(self._assignments(), ())

    def _nothing_left(self) -> ConfigError:
        return ConfigError("every trial is excluded", where=f"{self.file}: sweep.exclude", fix="remove an entry")

    # ------------------------------------------------------------ one pass

    def _one_repeat(self, assignments: Iterator[Assignment], repeat: int, tally: _Tally) -> Iterator[TrialSpec]:
        """The trials of one repeat. Excluded trials and duplicates do not count towards `search.trials`."""
        accepted, futile, limit = 0, 0, self.spec.search.trials
        endless = self._space.size() is None
        for assignment in assignments:
            trial = self._trial(assignment, repeat, tally)
            if trial is None:
                futile += 1
                if endless and futile >= _MAX_FUTILE_DRAWS:
                    return
                continue
            futile = 0
            accepted += 1
            yield trial
            if accepted == limit:
                return

    def _trial(self, assignment: Assignment, repeat: int, tally: _Tally) -> TrialSpec | None:
        renderer = self._renderer(assignment, tally)
        if self.spec.repeats > 1:
            assignment = (*assignment, (self._seed, renderer.base_seed(assignment) + repeat))
            renderer = self._renderer(assignment, tally)
        trial = renderer.trial(assignment, tally.matched)
        if trial is None:
            tally.excluded += 1
            return None
        if not tally.seen.add(trial.trial_id):
            tally.duplicates += 1
            return None
        tally.by_choice[renderer.swept_options] += 1
        return trial

    def _renderer(self, assignment: Assignment, tally: _Tally) -> TrialRenderer:
        cache_key = tuple(
            [
                key if not key.group else (key, value if type(value) is not list else tuple(value))
                for key, value in assignment
            ]
        )
        renderer = self.renderers.get(cache_key)
        if renderer is None:
            renderer = self._new_renderer(assignment)
            self.renderers[cache_key] = renderer
            if len(self.renderers) > _MAX_RENDERERS:
                self.renderers.popitem(last=False)
        if renderer.keys_met:
            tally.keys_met |= renderer.keys_met
        if renderer.warnings:
            tally.warnings.update(dict.fromkeys(renderer.warnings))
        return renderer

    def _new_renderer(self, assignment: Assignment) -> TrialRenderer:
        groups = _groups(assignment)
        composition = self._composition(groups)

        def hydra() -> HydraFacts:
            return self._source.hydra(groups, composition, self._section)

        return TrialRenderer(self.spec, composition, assignment, str(self.file), hydra, self._resolvers)

    def _composition(self, groups: Assignment) -> Composition:
        cache_key = tuple((key.name, _hashable(value)) for key, value in groups)
        if cache_key not in self._compositions:
            self._compositions[cache_key] = composition = self._source.compose(groups)
            if texts := given_as_text(composition.config):
                note = f"the trainer gets as text, since a trial's config is plain data: {', '.join(texts)}"
                self._source.composer.warnings[note] = None
            if len(self._compositions) > _MAX_COMPOSITIONS:
                self._compositions.popitem(last=False)
        return self._compositions[cache_key]

    def _check_exclude(self, tally: _Tally) -> None:
        """Refuse a key of `exclude` that no config has, nor any option of a group: it is misspelt."""
        met = tally.keys_met.union(*(each.keys_met for each in self.renderers.values()))
        for index, entry in enumerate(self.spec.exclude):
            for key in (written.lstrip("+") for written in entry):
                if key in met or self._source.composer.in_some_option(key):
                    continue
                known = dict.fromkeys(name for each in self.renderers.values() for name in each.known_keys())
                raise ConfigError(
                    f"no config of the sweep has the key {key!r}",
                    where=f"{self.file}: sweep.exclude[{index}]",
                    fix=suggest_key(key, [name for name in known if name.partition(".")[0] != "sweep"]),
                )

    def _summarise(self, tally: _Tally) -> PlanSummary:
        by_choice: dict[str, dict[str, int]] = {}
        for choice, count in tally.by_choice.items():
            for group, option in choice:
                options = by_choice.setdefault(group, {})
                options[option] = options.get(option, 0) + count
        warnings = dict.fromkeys([*self._source.composer.warnings, *tally.warnings])
        for index, entry in enumerate(self.spec.exclude):
            if index not in tally.matched:
                warnings[f"sweep.exclude[{index}] matches no trial: {_in_words(entry)}"] = None
        return PlanSummary(len(tally.seen), tally.excluded, tally.duplicates, by_choice, tuple(warnings))


def _groups(assignment: Assignment) -> Assignment:
    return tuple((key, value) for key, value in assignment if key.group)


def _in_words(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={naming.value(item)}" for key, item in entry.items())


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def read(
    request: Request, resolvers: Collection[str] = (), otherwise: Callable[[MayNeedCode], SweepPlan] | None = None
) -> SweepPlan:
    """Read a sweep file in this process. `resolvers`, `otherwise`: see `SweepPlan`."""
    source = open_source(request)
    space = source.space()
    _check(source, space)
    return SweepPlan(source, space, resolvers, otherwise)


def _check(source: Source, space: Space) -> None:
    """Checks that need the whole space."""
    spec = source.spec
    for key in space.all_keys():
        where = f"{source.file}: {key.where}"
        if key.name.split(".")[0] in ("sweep", "hydra") or key.name.startswith("hydra/"):
            raise ConfigError(
                f"{key.name!r} is not part of a trial's config and cannot be swept",
                where=where,
                fix="give it one value: in the section `sweep`, or on the command line",
            )
        if key.name == spec.seed and spec.repeats > 1:
            raise ConfigError(
                f"repeats and an axis both set the seed's key {spec.seed!r}",
                where=f"{source.file}: sweep.repeats",
                fix="remove one of them",
            )
    for key in space.intervals() if spec.search.method == "grid" else ():
        raise ConfigError(
            f"{key.name!r} is an interval, which a grid cannot enumerate",
            where=f"{source.file}: {key.where}",
            fix="use random search, e.g. search: {method: random, trials: 20}; or list values",
        )
