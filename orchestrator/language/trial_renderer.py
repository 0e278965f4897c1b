"""Renders the configs of trials that share a choice of group options and the set of keys that they change.

It uses a template if that is exact; otherwise Hydra merges and OmegaConf resolves each config.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.language import hydra_values, shown
from orchestrator.language.compose import Composition, has_key
from orchestrator.language.config_errors import join_hints, suggest_key
from orchestrator.language.hydra_facts import HydraFacts
from orchestrator.language.identity import Omit, canonical, digest, identity_text, key_matcher, with_sources
from orchestrator.language.option_names import option_name
from orchestrator.language.plain_data import accepted_type, dotted_keys, environment, resolved, unresolved
from orchestrator.language.references import (
    Path,
    References,
    Rules,
    dotted,
    find_references,
    find_sources,
    interpolates,
    leaves,
    resolvers_of,
)
from orchestrator.language.sweepfile import resources
from orchestrator.language.template import Template, equal_configs, make_template
from orchestrator.model.sweep import Resources, SweepSpec, TrialSpec
from orchestrator.search.space import Assignment, Key, Setting

_ABSENT = object()


@dataclass(frozen=True)
class Rendered:
    """One trial's config, as Hydra and OmegaConf make it."""

    nodes: Any  # the config as OmegaConf nodes
    raw: Mapping[Any, Any]
    config: dict[Any, Any]
    references: References


class TrialRenderer:
    """Renders the trials that set the same keys on the same choice of groups."""

    def __init__(
        self,
        spec: SweepSpec,
        composition: Composition,
        first: Assignment,
        where: str,
        hydra: Callable[[], HydraFacts],
        resolvers: Collection[str] = (),
    ) -> None:
        """`resolvers`: those that only the trainer's functions register."""
        self.spec, self.composition, self.where = spec, composition, where
        shared = spec.hydra.get("config", {}).get("job", {}).get("env_set", {})
        variables = {**shared, **(composition.section("job.env_set") or {})}  # that the job sets for itself
        self._variables = {name: str(value) for name, value in variables.items() if not interpolates(value)}
        late = variables.keys() - self._variables.keys()
        self._rules = Rules(spec.secrets, key_matcher(spec.allow_missing), resolvers, late)
        self.warnings: list[str] = []
        self.value_positions = [i for i, (key, _) in enumerate(first) if not key.group]
        self.varying = [(i, key.name) for i, (key, _) in enumerate(first) if key.varies]
        self.choices = _all_choices(composition, first)
        self.kept_choices = {
            group: None if option is None else str(option)
            for group, option in self.choices.items()
            if group != "sweep" and group.split("/")[0] != "hydra"
        }
        self._check_keys([key for key, _ in first])
        self.swept_options = tuple((key.name, _option(value)) for key, value in first if key.group)
        self._exclude = [self._with_option_names(index, entry) for index, entry in enumerate(spec.exclude)]
        values = [first[i] for i in self.value_positions]
        rendered = self._render(values)
        self.keys_met: set[str] = set()  # those keys of `exclude` that some config here has
        self._meet_keys(rendered.config)
        self.references = rendered.references.texts()
        needs_hydra = bool(spec.hydra) or any(map(hydra_values.paths_read, self.references.values()))
        self._hydra = hydra() if needs_hydra else None
        if self._hydra is not None:
            shown.check(self.references, self._hydra.section(first), where)
        outside = rendered.references.texts(late=False)
        self._name_late(rendered)
        self._omit = key_matcher(spec.ignore, outside)
        self._omit_seed = key_matcher((*spec.ignore, spec.seed), outside)
        self.seeded = _lookup(rendered.config, spec.seed) not in (_ABSENT, None)
        if not self.seeded:
            self._handle_missing_seed()
        if spec.steps_key and spec.steps_of(rendered.config) is None:
            raise self._wrong_steps(rendered.config)
        self.template = self._template(values, rendered)
        self._prepare(rendered)

    def _prepare(self, rendered: Rendered) -> None:
        self._resources: dict[str, Resources] = {}
        if self.template is None:
            self._warn_of_unstable_values(rendered)
            return
        sources = self._sources(rendered)
        self._text = self.template.text(self.spec.trainer, self._omit, sources)
        self._text_unseeded = self.template.text(self.spec.trainer, self._omit_seed, sources)
        self._seed_placeholder = self.template.placeholder(self.spec.seed.split("."))
        self._seed = _lookup(rendered.config, self.spec.seed)
        self._fixed_resources: Resources | None = None
        if not any(path[0] == "sweep" for path in self.template.paths):
            self._fixed_resources = self._resources_of(rendered.config)
        self._excludes = self._compiled_excludes(rendered.config)

    def _name_late(self, rendered: Rendered) -> None:
        for key, text in rendered.references.texts().items():
            for name in resolvers_of(text):
                if name in self._rules.resolvers:
                    self.warnings.append(f"{key} stays {text}: only the trainer's functions register {name!r}")

    def _handle_missing_seed(self) -> None:
        if self.spec.repeats > 1:
            raise ConfigError(
                f"repeats need a seed, but the config has no {self.spec.seed!r}",
                where=f"{self.where}: sweep.repeats",
                fix="add the key to the config, or name another key in sweep.seed",
            )
        self.warnings.append(f"the config has no {self.spec.seed!r} (sweep.seed): trials are seeded from their ids")

    def _wrong_steps(self, config: Mapping[Any, Any]) -> ConfigError:
        key, value = self.spec.steps_key, _lookup(config, self.spec.steps_key)
        if value is _ABSENT:
            fix = suggest_key(key, list(dotted_keys(config))) or "name a key of the config, or write the number"
            return ConfigError(f"the config has no key {key!r}", where=f"{self.where}: sweep.steps", fix=fix)
        what = f"{self.spec.steps} is {value!r}, not a whole number above 0"
        return ConfigError(what, where=f"{self.where}: sweep.steps", fix="name another key, or write the number")

    # ------------------------------------------------------------ making

    def _check_keys(self, settings: Sequence[Key]) -> None:
        names = [key.name for key in settings]
        for key in settings:
            if names.count(key.name) > 1:
                raise ConfigError(
                    f"{key.name!r} is swept twice in one trial", where=self._at(key), fix="remove one of the axes"
                )
            if key.group or key.sigil or has_key(self.composition.config, key.name):
                continue
            if any(part.isdigit() for part in key.name.split(".")):
                continue  # an element of a list: Hydra checks it
            known = [
                name
                for name in dotted_keys(unresolved(self.composition.config, self.where))
                if name.split(".")[0] != "sweep"
            ]
            known += [group for group in self.composition.choices if not group.startswith("hydra/")]
            guess = suggest_key(key.name, known)
            raise ConfigError(
                f"the config has no key {key.name!r}{_options_text(self.choices, settings)}",
                where=self._at(key),
                fix=join_hints(guess, f"to add it where it is missing, write ++{key.name}"),
            )

    def _at(self, key: Key) -> str:
        return f"{self.where}: {key.where}" if key.where else self.where

    def _template(self, values: Sequence[Setting], rendered: Rendered) -> Template | None:
        swept = [tuple(key.name.split(".")) for key, _ in values]
        config = self.composition.config
        types = [
            None if key.sigil == "+" and has_key(config, key.name) else accepted_type(config, path)
            for (key, _), path in zip(values, swept, strict=True)
        ]
        template = make_template(rendered.raw, rendered.config, swept, types, rendered.references.kept)
        if template is None:
            return None
        filled = template.fill([value for _, value in values])
        return template if filled is not None and equal_configs(template.build(filled), rendered.config) else None

    def _warn_of_unstable_values(self, rendered: Rendered) -> None:
        again = self._resolved(rendered.nodes, rendered.references)
        before = {dotted(path): value for path, value in leaves(rendered.config)}
        for path, value in leaves(again):
            if not equal_configs(value, before.get(dotted(path))):
                self.warnings.append(
                    f"{dotted(path)} differs between two compositions of one config, so every plan has new trials: "
                    "give it a fixed value or list it under sweep.ignore"
                )

    # ------------------------------------------------------------ rendering

    def _render(self, values: Sequence[Setting]) -> Rendered:
        where = self.where
        try:
            config = self.composition.with_values(values)
        except ConfigError as error:
            named = [key for key, _ in values if f"'{key.name}'" in error.what or f"{key.name}=" in error.what]
            raise ConfigError(error.what, where=self._at(named[0]) if named else where, fix=error.fix) from error
        raw = unresolved(config, where)
        found = find_references({k: v for k, v in raw.items() if k != "sweep"}, self._rules, where)
        return Rendered(config, raw, self._resolved(config, found), found)

    def _resolved(self, config: Any, references: References) -> dict[Any, Any]:
        with environment(self._variables):
            return resolved(config, references.kept, self.where)

    def base_seed(self, assignment: Assignment) -> int:
        """The seed of the first repeat."""
        if self.template is not None:
            filled = self.template.fill([assignment[i][1] for i in self.value_positions])
            if filled is not None:
                return self._int_seed(self._seed if self._seed_placeholder is None else filled[self._seed_placeholder])
        config = self._render([assignment[i] for i in self.value_positions]).config
        return self._int_seed(_lookup(config, self.spec.seed))

    def _int_seed(self, value: Any) -> int:
        if type(value) is int:
            return value
        raise ConfigError(
            f"the seed is {value!r}, not a whole number",
            where=f"{self.where}: {self.spec.seed}",
            fix="use an int, or name another key in sweep.seed",
        )

    def trial(self, assignment: Assignment, matched: set[int]) -> TrialSpec | None:
        """The trial of an assignment, or None if `sweep.exclude` excludes it.

        The indices of the entries that match are added to `matched`.
        """
        filled = self.template.fill([assignment[i][1] for i in self.value_positions]) if self.template else None
        if filled is None:
            return self._compose_trial(assignment, matched)
        if self._excludes and self._excluded(filled, matched):
            return None
        template = self.template
        assert template is not None
        encoded = [canonical(value) for value in filled]
        config = template.build(filled)
        config.pop("sweep", None)
        trial_id = self._text.digest(encoded)
        seed = self._seed if self._seed_placeholder is None else filled[self._seed_placeholder]
        return TrialSpec(
            trial_id=trial_id,
            config=config,
            config_id=self._text_unseeded.digest(encoded),
            references=self.references,
            resources=self._fixed_resources or self._resources_of(template.build(filled)),
            **self._common(assignment, trial_id, seed),
        )

    def _common(self, assignment: Assignment, trial_id: str, seed: Any) -> dict[str, Any]:
        """What a trial has alike, however its config is rendered. `seed`: the value in its config."""
        return {
            "overrides": {name: assignment[i][1] for i, name in self.varying},
            "seed": self._int_seed(seed) if seed is not None and seed is not _ABSENT else seed_from_id(trial_id),
            "choices": self.kept_choices,
            "hydra": self._hydra.of_trial(assignment) if self._hydra else {},
        }

    def _compose_trial(self, assignment: Assignment, matched: set[int]) -> TrialSpec | None:
        rendered = self._render([assignment[i] for i in self.value_positions])
        config = rendered.config
        if self._exclude:
            self._meet_keys(config)
        hits = [i for i, entry in enumerate(self._exclude) if self._matches(entry, config)]
        matched.update(hits)
        if hits:
            return None
        held = self._resources_of(config)
        config.pop("sweep", None)
        outside = rendered.references.texts(late=False)
        ignore, seed = self.spec.ignore, _lookup(config, self.spec.seed)
        counted = with_sources(config, self._sources(rendered))
        trial_id = self._id(counted, key_matcher(ignore, outside))
        return TrialSpec(
            trial_id=trial_id,
            config=config,
            config_id=self._id(counted, key_matcher((*ignore, self.spec.seed), outside)),
            references=rendered.references.texts(),
            resources=held,
            **self._common(assignment, trial_id, seed),
        )

    def _sources(self, rendered: Rendered) -> dict[Path, str]:
        """Where the values come from that depend on ignored keys."""
        if not self.spec.ignore:
            return {}
        raw = {key: value for key, value in rendered.raw.items() if key != "sweep"}
        return find_sources(raw, key_matcher(self.spec.ignore), rendered.references.kept)

    def _id(self, config: Mapping[Any, Any], omit: Omit) -> str:
        return digest(identity_text(self.spec.trainer, config, omit))

    def _resources_of(self, config: Mapping[Any, Any]) -> Resources:
        written = config.get("sweep", {}).get("resources", {})
        text = canonical(written)
        if text not in self._resources:
            self._resources[text] = resources(written, f"{self.where}: sweep.resources")
        return self._resources[text]

    # ------------------------------------------------------------ excluding

    def _with_option_names(self, index: int, entry: Mapping[str, Any]) -> dict[str, Any]:
        """An entry of `exclude`, in which options are named as axes name them."""
        named: dict[str, Any] = {}
        for written, wanted in entry.items():
            key = written.lstrip("+")
            named[key] = wanted
            if key in self.choices:
                where = f"{self.where}: sweep.exclude[{index}].{key}"
                several = isinstance(wanted, list)
                named[key] = [option_name(v, where) for v in wanted] if several else option_name(wanted, where)
        return named

    def _meet_keys(self, config: Mapping[Any, Any]) -> None:
        for entry in self._exclude:
            self.keys_met.update(k for k in entry if k in self.choices or _lookup(config, k) is not _ABSENT)

    def known_keys(self) -> list[str]:
        """The keys and groups that `exclude` may name here."""
        return [*dotted_keys(unresolved(self.composition.config, self.where)), *self.choices]

    def _matches(self, entry: Mapping[str, Any], config: Mapping[Any, Any]) -> bool:
        return all(self._key_matches(key, wanted, config) for key, wanted in entry.items())

    def _key_matches(self, key: str, wanted: Any, config: Mapping[Any, Any]) -> bool:
        if key in self.choices:
            return _any_of(self.choices[key], wanted)
        value = _lookup(config, key)
        return value is not _ABSENT and _any_of(value, wanted)

    def _compiled_excludes(self, config: Mapping[Any, Any]) -> list[tuple[int, list[tuple[int, Any]]]]:
        """The entries that can match here, each with the tests that remain for a trial: (placeholder, wanted value)."""
        assert self.template is not None
        left = []
        for index, entry in enumerate(self._exclude):
            tests: list[tuple[int, Any]] = []
            possible = True
            for key, wanted in entry.items():
                placeholder = None if key in self.choices else self.template.placeholder(key.split("."))
                if placeholder is not None:
                    tests.append((placeholder, wanted))
                elif not self._key_matches(key, wanted, config):
                    possible = False
            if possible:
                left.append((index, tests))
        return left

    def _excluded(self, filled: Sequence[Any], matched: set[int]) -> bool:
        hits = [i for i, tests in self._excludes if all(_any_of(filled[index], wanted) for index, wanted in tests)]
        matched.update(hits)
        return bool(hits)


def seed_from_id(trial_id: str) -> int:
    """The seed of a trial whose config has no seed: 31 bits of its id."""
    return int(trial_id, 16) & 0x7FFFFFFF


def _all_choices(composition: Composition, first: Assignment) -> dict[str, Any]:
    chosen = {key.name: value for key, value in first if key.group}
    return {**composition.choices, **chosen}


def _option(value: Any) -> str:
    return "null" if value is None else str(value)


def _options_text(choices: Mapping[str, Any], settings: Sequence[Key]) -> str:
    options = [f"{key.name}={choices[key.name]}" for key in settings if key.group]
    return f" (with {', '.join(options)})" if options else ""


def _lookup(config: Any, key: str) -> Any:
    node = config
    for part in key.split("."):
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, Mapping) and part in node:
            node = node[part]
        else:
            return _ABSENT
    return node


def _any_of(value: Any, wanted: Any) -> bool:
    return any(_equal(value, item) for item in wanted) if isinstance(wanted, list) else _equal(value, wanted)


def _equal(value: Any, wanted: Any) -> bool:
    """Whether two values are equal: 1 equals 1.0, but true equals neither."""
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)
