"""Composes configs and lists config groups. With `config_files` and `overrides`, all that imports Hydra.

Hydra's `compose()` spends most of its time building Hydra's own configuration, which it then discards. Here we call
Hydra's defaults list and merging directly, only for the user's configs, and read each file once. Hydra's configuration
is composed as well if a config overrides one of its groups, and once for what a trial is told of it.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from hydra import __version__ as hydra_version
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides, _create_defaults_list
from hydra._internal.utils import create_config_search_path
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    RangeSweep,
)
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict

from orchestrator.errors import ConfigError
from orchestrator.language.config_errors import MayNeedCode, as_config_error, config_error, join_hints, suggest_key
from orchestrator.language.config_files import SECTIONS, CopyingRepository, Repository, copier
from orchestrator.language.hydra_values import UNKNOWN, added
from orchestrator.language.identity import canonical
from orchestrator.language.overrides import BELOW_PLUGINS, as_override, is_of_plugin, of_hydra
from orchestrator.language.plain_data import dotted_keys, unresolved
from orchestrator.language.trainer_source import NEWEST, OLDEST
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
    hydra: DictConfig | None = None  # the `hydra` section: as configs have it, or complete
    appended: bool = False  # whether the choice of `sweep` had to be added to the defaults list

    @cached_property
    def _copy(self) -> Callable[[], Any]:
        return copier(self.config)

    def has_section(self) -> bool:
        """Whether there is a `sweep` section."""
        node = self.config._get_node("sweep", validate_access=False)
        return node is not None and not (isinstance(node, DictConfig) and node._is_none())

    def section(self, key: str) -> Any:
        """What configs say at a key of `hydra`, as plain data; None if they say nothing."""
        found = OmegaConf.select(self.hydra, key) if self.hydra is not None else None
        return OmegaConf.to_container(found, resolve=False) if OmegaConf.is_config(found) else found

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


class Composer:
    """Composes a primary config with the group folders beside it."""

    def __init__(
        self, file: Path, overrides: Sequence[str] = (), config_dir: Path | None = None, version_base: str = NEWEST
    ) -> None:
        self.file = file
        self.version_base = version_base
        self.fixed = [self.parse(text) for text in overrides]
        self.warnings: dict[str, None] = {}
        self._name = file.stem
        with self._reading():
            path = create_config_search_path(str(file.parent.absolute()))
            if config_dir is not None:
                path.prepend("command-line", str(config_dir.absolute()), anchor="schema")
            self._loader = ConfigLoaderImpl(path)
            self._repository = Repository(ConfigRepository(path))
            self._loader._process_config_searchpath(self._name, self.fixed, self._repository)
        self._copies = CopyingRepository(self._repository)
        self._groups: dict[str, bool] = {}
        self.fixed = [self._with_names(parsed) for parsed in self.fixed]
        self._sections: dict[str, dict[str, Any]] = {}  # by what configs say under `hydra`

    def _with_names(self, parsed: Override) -> Override:
        """The override; if it chooses an option whose name reads as a number, with that name as it is written."""
        value = parsed._value
        if parsed.is_sweep_override() or not self.is_group(parsed.key_or_group):
            return parsed
        if isinstance(value, (int, float)):
            return replace(parsed, _value=parsed.input_line.partition("=")[2].strip())
        if isinstance(value, list):
            return replace(parsed, _value=[str(item) if isinstance(item, (int, float)) else item for item in value])
        return parsed

    def check_packages(self) -> None:
        """Packages of the project can be found only where the project is on `sys.path`."""
        for source in self._repository.get_sources():
            if source.scheme() == "pkg" and not source.available():
                where = f"{self.file}: hydra.searchpath"
                error = MayNeedCode(f"there is no package {source.path!r}", where=where, fix="is it installed?")
                error.certain = True
                raise error

    def refuse_doubt(self) -> None:
        """Refuse files whose meaning depends on `version_base`, since it is not known for sure."""
        self._repository.refuse_doubt()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Follow the app's version, collect warnings, and turn exceptions into ConfigErrors."""
        version.VersionBase.instance().setbase(version._get_version(self.version_base))  # `setbase` itself would warn
        with warnings.catch_warnings(record=True) as caught, as_config_error(str(self.file)):
            warnings.simplefilter("always")
            yield
        said = (" ".join(str(warning.message).split()) for warning in caught)
        self.warnings.update({text: None for text in said if self.version_base != OLDEST or "deprecated" not in text})

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
            plain = bool(path) and "\0" not in path and all(part.strip(".") for part in path.split("/"))
            self._groups[path] = plain and self._repository.group_exists(path)
        return self._groups[path]

    def options(self, group: str) -> list[str]:
        """The options of a group."""
        found: list[str] = self._repository.get_group_options(group, ObjectType.CONFIG)
        return found

    def in_some_option(self, key: str) -> bool:
        """Whether any option of any group brings a dotted key, or the key names a group."""
        return self.is_group(key.partition("@")[0]) or any(
            has_key(config, key.removeprefix(f"{package}.") if package else key)
            for package, config in self._all_options("")
            if not package or key.startswith(f"{package}.")
        )

    def _all_options(self, group: str) -> Iterator[tuple[str, DictConfig]]:
        """The config of every option of every group below this one, with its package."""
        for name in self._repository.get_group_options(group, ObjectType.GROUP):
            inner = f"{group}/{name}".lstrip("/")
            if inner == "hydra":
                continue
            for option in self.options(inner):
                with suppress(ConfigError), self._reading():
                    loaded = self._repository.load_config(f"{inner}/{option}")
                    package = loaded.header.get("package") or inner.replace("/", ".")
                    if isinstance(loaded.config, DictConfig):
                        yield package.removeprefix("_global_").strip("."), loaded.config
            yield from self._all_options(inner)

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
                return self._defaults_list([o for o in overrides if prepend or not of_hydra(o)], partial, prepend)
            except ConfigCompositionException:
                if prepend:
                    raise
        return self._layout(overrides, partial, prepend=True)

    def _defaults_list(self, given: list[Override], partial: bool, prepend: bool) -> Layout:
        """As Hydra's `create_defaults_list`; but groups below a plugin that is not installed may be overridden."""
        overrides = Overrides(self._repository, [o for o in given if not is_of_plugin(o)])
        defaults, tree = _create_defaults_list(self._repository, self._name, overrides, prepend, partial)
        for key, found in overrides.override_metadata.items():
            found.used |= key.startswith(BELOW_PLUGINS)
        overrides.ensure_overrides_used()
        overrides.ensure_deletions_used()
        return DefaultsList(defaults, tree, overrides.config_overrides, overrides)

    def compose(
        self,
        overrides: Sequence[Override],
        lenient: Sequence[Override] = (),
        partial: bool = False,
        section: Mapping[str, Any] | None = None,
        complete: bool = False,
    ) -> Composition:
        """The config that Hydra composes. `lenient` overrides are applied only if their key exists.

        `section` replaces the `sweep` section. `complete`: Hydra's own configuration is composed as well.
        """
        layout = self._layout(overrides, partial, prepend=complete)
        with self._reading():
            defaults = [ResultDefault(config_path=SECTIONS), *layout.defaults]
            config = self._loader._compose_config_from_defaults_list(defaults, self._copies)
            OmegaConf.set_struct(config, True)
            values = [o for o in layout.config_overrides if complete or not of_hydra(o)]
            values += [o for o in lenient if has_key(config, o.key_or_group)]
            for parsed in values:
                self._apply(parsed, config)
            with open_dict(config):
                hydra = config.pop("hydra") or None
                if section is not None:
                    config["sweep"] = section
                elif _is_empty(config._get_node("sweep")):
                    config.pop("sweep")
        return Composition(config, dict(layout.overrides.known_choices), hydra)

    def hydra_section(self, overrides: Sequence[Override], composition: Composition, app: str) -> dict[str, Any]:
        """The complete `hydra` section for a composition, as plain data; what is not known yet is `???`.

        `app`: the job's name, where no config gives one.
        """
        said = canonical(unresolved(composition.hydra, str(self.file))) if composition.hydra is not None else ""
        if said not in self._sections:
            complete = self.compose(overrides, complete=True)
            assert complete.hydra is not None
            section = unresolved(complete.hydra, str(self.file))
            own = [parsed.input_line for parsed in self.fixed if of_hydra(parsed)]
            choices = {key: value for key, value in complete.choices.items() if key.split("/")[0] == "hydra"}
            facts = {
                "mode": "MULTIRUN",
                "overrides": {"hydra": [*own, "hydra.mode=MULTIRUN"]},
                "job": {"config_name": self._name, "name": _known(section["job"]["name"]) or app},
                "runtime": {
                    "version": hydra_version,
                    "version_base": self.version_base,
                    "config_sources": [
                        {"path": source.path, "schema": source.scheme(), "provider": source.provider}
                        for source in self._repository.get_sources()
                    ],
                    "choices": choices,
                },
            }
            self._sections[said] = added(section, facts)
        return self._sections[said]

    def _apply(self, parsed: Override, config: DictConfig) -> None:
        try:
            ConfigLoaderImpl._apply_overrides_to_config([parsed], config)
        except ConfigCompositionException as error:
            explained = config_error(error, f"override {parsed.input_line!r}")
            if not has_key(config, parsed.key_or_group):
                keys = dotted_keys(unresolved(config, str(self.file)))
                known = [*(key for key in keys if key.partition(".")[0] != "sweep"), *self.groups()]
                guess = suggest_key(parsed.key_or_group, known)
                explained = MayNeedCode(
                    f"the config has no key {parsed.key_or_group!r}",
                    where=explained.where,
                    fix=join_hints(guess, f"to add it where it is missing, write ++{parsed.input_line.lstrip('+')}"),
                )
            raise explained from error


def _is_empty(node: Any) -> bool:
    return isinstance(node, DictConfig) and not node and not node._is_interpolation()


def _known(value: Any) -> Any:
    return None if value == UNKNOWN else value


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
