"""The only module that imports Hydra: it composes configs, parses overrides and lists config groups.

Hydra's `compose()` spends most of its time building Hydra's own configuration, which it then discards. Here we call
Hydra's defaults list and merging directly, only for the user's configs, and read each file once. If a config overrides
one of Hydra's own groups, Hydra's configuration is composed as well.
"""

from __future__ import annotations

import copy
import pickle
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import hydra.version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.defaults_list import DefaultsList, create_defaults_list
from hydra._internal.utils import create_config_search_path
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    OverrideType,
    RangeSweep,
    ValueType,
)
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict

from orchestrator.errors import ConfigError
from orchestrator.language.config_errors import as_config_error, config_error, join_hints, suggest_key
from orchestrator.language.plain_data import dotted_keys, unresolved
from orchestrator.search.space import Interval, Setting

Layout: TypeAlias = DefaultsList
Parsed: TypeAlias = Override


@dataclass(frozen=True)
class Values:
    """The values that the right-hand side of an override stands for."""

    rows: Sequence[Any] | Interval
    swept: bool  # False: one plain value


@dataclass(frozen=True)
class Composition:
    """A config composed for one choice of group options, with the fixed overrides applied."""

    config: DictConfig  # with `sweep`, without `hydra`
    choices: Mapping[str, str | None]  # by group
    appended: bool = False  # whether the choice of `sweep` had to be added to the defaults list

    @cached_property
    def _copy(self) -> Callable[[], Any]:
        return copier(self.config)

    def has_section(self) -> bool:
        """Whether there is a `sweep` section."""
        node = self.config._get_node("sweep", validate_access=False)
        return node is not None and not (isinstance(node, DictConfig) and node._is_none())

    def with_overrides(self, overrides: Sequence[Override]) -> Composition:
        """A copy with more overrides applied by Hydra."""
        config = self._copy()
        with as_config_error("sweep"):
            ConfigLoaderImpl._apply_overrides_to_config(list(overrides), config)
        return replace(self, config=config)

    def with_values(self, settings: Sequence[Setting]) -> DictConfig:
        """A copy with more values set by Hydra."""
        config: DictConfig = self._copy()
        with as_config_error(""):
            ConfigLoaderImpl._apply_overrides_to_config([as_override(s) for s in settings], config)
        return config


class _Repository(CachingConfigRepository):  # type: ignore[misc]
    """Reads each config file once."""


class _CopyingRepository(CachingConfigRepository):  # type: ignore[misc]
    """Gives copies of the configs, because merging takes over nodes of the configs that it gets."""

    def __init__(self, delegate: _Repository) -> None:
        self.delegate = delegate  # the base class would deep-copy it
        self._copies: dict[str, Callable[[], Any]] = {}

    def load_config(self, config_path: str) -> Any:
        loaded = copy.copy(self.delegate.load_config(config_path))
        if loaded is not None:
            if config_path not in self._copies:
                self._copies[config_path] = copier(loaded.config)
            loaded.config = self._copies[config_path]()
        return loaded


def copier(config: Any) -> Callable[[], Any]:
    """A function that copies a config: by pickling where possible, which is five times as fast as a deep copy."""
    try:
        frozen = pickle.dumps(config, pickle.HIGHEST_PROTOCOL)
    except Exception:  # it contains a class that cannot be pickled
        return lambda: copy.deepcopy(config)
    return lambda: pickle.loads(frozen)


class Composer:
    """Composes a primary config with the group folders beside it."""

    def __init__(self, file: Path, overrides: Sequence[str] = (), config_dir: Path | None = None) -> None:
        self.file = file
        self.fixed = [self.parse(text) for text in overrides]
        self.warnings: dict[str, None] = {}
        self._name = file.stem
        with self._reading():
            hydra.version.setbase("1.3")
            path = create_config_search_path(str(file.parent.absolute()))
            if config_dir is not None:
                path.prepend("command-line", str(config_dir.absolute()), anchor="schema")
            self._loader = ConfigLoaderImpl(path)
            self._repository = _Repository(ConfigRepository(path))
            self._loader._process_config_searchpath(self._name, self.fixed, self._repository)
        self._copies = _CopyingRepository(self._repository)
        self._groups: dict[str, bool] = {}

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Collect warnings, and turn exceptions into ConfigErrors."""
        with warnings.catch_warnings(record=True) as caught, as_config_error(str(self.file)):
            warnings.simplefilter("always")
            yield
        self.warnings.update({str(warning.message): None for warning in caught})

    # ------------------------------------------------------------ the grammar

    @cached_property
    def _parser(self) -> OverridesParser:
        return OverridesParser.create()

    def parse(self, text: str) -> Override:
        """One override of the command line."""
        with as_config_error(f"override {text!r}"):
            parsed: Override = self._parser.parse_overrides([text])[0]
        return parsed

    def values(self, text: str, group: str | None = None) -> Values:
        """The values that a string stands for in Hydra's sweep grammar."""
        state = random.getstate()
        random.seed(0)  # parsing shuffle(...) of a plain list already draws random numbers
        try:
            with as_config_error(""):
                parsed = self._parser.parse_override(f"x={text}")
        finally:
            random.setstate(state)
        return self.swept(parsed, group)

    def swept(self, parsed: Override, group: str | None) -> Values:
        """The values of a parsed override, always in the same order."""
        value = parsed._value
        if isinstance(value, IntervalSweep):
            integer = isinstance(value.start, int)
            return Values(Interval(value.start, value.end, "log" in value.tags, integer), swept=True)
        if isinstance(value, Glob):
            return Values(tuple(value.filter(self.options(group) if group else [])), swept=True)
        if not isinstance(value, (ChoiceSweep, RangeSweep)):
            return Values((parsed.value(),), swept=False)
        rows: Sequence[Any]
        if isinstance(value, ChoiceSweep):
            rows = tuple(Override._convert_value(item) for item in value.list)
        else:
            numbers = value.range()
            rows = numbers if isinstance(numbers, range) else tuple(numbers)
        if value.shuffle:
            rows = random.Random(0).sample(list(rows), len(rows))
        return Values(rows, swept=True)

    # ------------------------------------------------------------ groups

    def is_group(self, path: str) -> bool:
        """Whether a config group of this path exists on the search path."""
        if path not in self._groups:
            plain = bool(path) and all(part.strip(".") for part in path.split("/"))
            self._groups[path] = plain and self._repository.group_exists(path)
        return self._groups[path]

    def options(self, group: str) -> list[str]:
        """The options of a group."""
        found: list[str] = self._repository.get_group_options(group, ObjectType.CONFIG)
        return found

    def options_below(self, group: str) -> list[str]:
        """The options of the groups below a group, as Hydra names them there: `folder/option`."""
        inner: list[str] = self._repository.get_group_options(group, ObjectType.GROUP)
        return [
            f"{name}/{option}"
            for name in inner
            for option in (*self.options(f"{group}/{name}"), *self.options_below(f"{group}/{name}"))
        ]

    def groups(self) -> list[str]:
        """The groups at the root of the search path."""
        found: list[str] = self._repository.get_group_options("", ObjectType.GROUP)
        return [name for name in found if name != "hydra"]

    # ------------------------------------------------------------ composing

    def layout(self, overrides: Sequence[Override], partial: bool = False) -> Layout:
        """Which configs are merged, in which order and at which packages. `partial`: skip groups with option `???`."""
        return self._layout(overrides, partial, prepend=False)

    def _layout(self, overrides: Sequence[Override], partial: bool, prepend: bool) -> Layout:
        with self._reading():
            try:
                return create_defaults_list(
                    self._repository,
                    self._name,
                    [o for o in overrides if prepend or not _of_hydra(o)],
                    prepend_hydra=prepend,
                    skip_missing=partial,
                )
            except ConfigCompositionException:
                if prepend:
                    raise
        return self._layout(overrides, partial, prepend=True)

    def compose(
        self,
        overrides: Sequence[Override],
        lenient: Sequence[Override] = (),
        partial: bool = False,
        section: Mapping[str, Any] | None = None,
    ) -> Composition:
        """The config that Hydra composes. `lenient` overrides are applied only if their key exists.

        `section` replaces the `sweep` section.
        """
        layout = self.layout(overrides, partial)
        with self._reading():
            config = self._loader._compose_config_from_defaults_list(layout.defaults, self._copies)
            OmegaConf.set_struct(config, True)
            values = [o for o in layout.config_overrides if not _of_hydra(o)]
            values += [o for o in lenient if has_key(config, o.key_or_group)]
            for parsed in values:
                self._apply(parsed, config)
            with open_dict(config):
                config.pop("hydra", None)
                if section is not None:
                    config["sweep"] = section
        return Composition(config, dict(layout.overrides.known_choices))

    def _apply(self, parsed: Override, config: DictConfig) -> None:
        try:
            ConfigLoaderImpl._apply_overrides_to_config([parsed], config)
        except ConfigCompositionException as error:
            explained = config_error(error, f"override {parsed.input_line!r}")
            if not has_key(config, parsed.key_or_group):
                known = [*dotted_keys(unresolved(config, str(self.file))), *self.groups()]
                guess = suggest_key(parsed.key_or_group, known)
                explained = ConfigError(
                    f"the config has no key {parsed.key_or_group!r}",
                    where=explained.where,
                    fix=join_hints(guess, explained.fix),
                )
            raise explained from error


def _of_hydra(parsed: Override) -> bool:
    return bool(parsed.is_hydra_override()) or parsed.key_or_group == "hydra"


def has_key(config: DictConfig, key: str) -> bool:
    """Whether a config has a dotted key, whatever its value."""
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and last in list(node.keys())  # `in` is false for a key whose value is `???`


def package_of(layout: Layout, group: str) -> str | None:
    """The package of a group's chosen option: a dotted key, "" for the root. None: the layout lacks the group."""
    found = [d.package for d in layout.defaults if d.override_key == group]
    found += [d.package for d in layout.defaults if d.is_self and d.config_path == _path(layout, group)]
    return found[0] or "" if found else None


def _path(layout: Layout, group: str) -> str | None:
    choice = layout.overrides.known_choices.get(group)
    return f"{group.partition('@')[0]}/{choice}" if choice else None


def as_override(setting: Setting) -> Override:
    """A setting as an override of Hydra. The option null removes the group from the defaults list."""
    key, value = setting
    if not key.group:
        kind = {"": OverrideType.CHANGE, "+": OverrideType.ADD, "++": OverrideType.FORCE_ADD}[key.sigil]
        line = f"{key.sigil}{key.name}={value}"
        return Override(kind, key.name, ValueType.ELEMENT, value, input_line=line)
    group, _, package = key.name.partition("@")
    at = package or None
    if value is None:
        return Override(OverrideType.DEL, group, None, None, at, f"~{key.name}")
    kind = OverrideType.ADD if key.sigil else OverrideType.CHANGE
    return Override(kind, group, ValueType.ELEMENT, value, at, f"{key.sigil}{key.name}={value}")


def as_addition(parsed: Override) -> Override:
    """The override with `+`: it adds a missing key, or appends a group to the defaults list."""
    if parsed.is_delete():
        return parsed
    kind = OverrideType.ADD if parsed.key_or_group == "sweep" else OverrideType.FORCE_ADD
    return replace(parsed, type=kind)
