"""A sweep file with the overrides of the command line: its `sweep` section, its axes, its compositions.

An override is used in one of four ways: it changes the `sweep` section, it replaces an axis, it becomes an axis of its
own if it has several values, or it is a fixed override of every composition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError, nearest
from orchestrator.language import wandb_sweep
from orchestrator.language.axes import AxisReader, Replacement
from orchestrator.language.compose import Composer, Composition, Parsed, package_of
from orchestrator.language.hydra_facts import HydraFacts
from orchestrator.language.hydra_values import Section, changes_directory, difference
from orchestrator.language.overrides import as_addition, as_choice, as_override
from orchestrator.language.plain_data import unresolved
from orchestrator.language.references import Rules, find_references
from orchestrator.language.sweepfile import read
from orchestrator.language.trainer_source import NEWEST, OLDEST, App, app_of
from orchestrator.model import trainer
from orchestrator.model.sweep import SweepSpec
from orchestrator.search.space import Interval, Setting, Space


@dataclass(frozen=True)
class Request:
    """What a plan is read from."""

    file: Path
    overrides: tuple[str, ...]
    config_dir: Path | None
    project: Path  # the folder that the trainer is imported from
    imported: bool = False  # whether this process has imported the trainer's module


@dataclass
class Source:
    """A sweep file that has been read, and what is needed to compose its configs."""

    file: Path
    overrides: tuple[str, ...]
    composer: Composer
    spec: SweepSpec
    fixed: list[Parsed]  # applied to every composition
    replacing: dict[str, tuple[Parsed, Replacement]]  # may replace an axis; by key
    app: App
    base: Composition  # the composition that `spec` was read from
    lenient: list[Parsed] = field(default_factory=list)  # applied to those compositions that have their key

    def space(self) -> Space:
        """The space of the axes. Also decides how overrides that are not axes are applied: everywhere, or leniently."""
        replacements = {name: new for name, (_, new) in self.replacing.items()}
        reader = AxisReader(_Vocabulary(self), str(self.file), replacements)
        space = reader.read(*self._axes())
        self.composer.warnings.update(dict.fromkeys(reader.warnings))
        for name, (parsed, new) in self.replacing.items():
            if new.varies or name in reader.at_root:
                continue
            if name not in reader.scoped:
                self.fixed.append(parsed)
            elif not self.composer.is_group(parsed.key_or_group):
                self.lenient.append(parsed)
        return space

    def _axes(self) -> tuple[Any, str]:
        """The axes and where they are written: in `sweep`, or else where a Hydra application has them."""
        params = self._params()
        if params and self.spec.axes:
            unused = f"hydra.sweeper.params is not used, since there is sweep.axes: {', '.join(params)}"
            self.composer.warnings[unused] = None
        if self.spec.axes or not params:
            return self.spec.axes, "sweep.axes"
        return {key: [value] if isinstance(value, list) else value for key, value in params.items()}, PARAMS

    def _params(self) -> dict[str, Any]:
        """`hydra.sweeper.params`, with the overrides of the command line."""
        sweeper = self.base.section("sweeper.params")
        params = {str(key): value for key, value in sweeper.items()} if isinstance(sweeper, dict) else {}
        for parsed in self.composer.fixed:
            section, _, key = parsed.key_or_group.partition(f"{PARAMS}.")
            if key and not section:
                params.pop(key, None)
            if key and not section and not parsed.is_delete():
                params[key] = parsed.value()
            elif parsed.key_or_group == PARAMS and isinstance(parsed.value(), dict):
                params.update(parsed.value())
        return params

    def uses_hydra(self) -> bool:
        """Whether trials are told what Hydra would tell them: its values, its `HydraConfig`, its files."""
        said = self.base.hydra is not None or any(parsed.is_hydra_override() for parsed in self.composer.fixed)
        return said or self.app.uses_hydra or self.app.decorated or self.spec.version_base is not None

    def hydra(self, groups: Sequence[Setting], composition: Composition, known: Section | None = None) -> HydraFacts:
        """What Hydra would tell the trials of a composition. `known`: what of it is kept for all trials; None: all."""
        module = trainer.parse(self.spec.trainer).module
        overrides = [*self.fixed, *_option_overrides(groups)]
        section = self.composer.hydra_section(overrides, composition, module.rpartition(".")[2])
        find_references({"hydra": section}, Rules(self.spec.secrets), str(self.file))  # no secret in plain text
        own = [parsed for parsed in self.fixed if not parsed.is_hydra_override() and parsed.key_or_group != "sweep"]
        return HydraFacts(section, difference(section if known is None else known, section), composition.choices, own)

    def hydra_of_sweep(self, section: Section) -> Section:
        """What is kept of Hydra's settings for all trials; also names those that are not used."""
        kept = {"config": section, "version_base": self.composer.version_base}
        if section.get("callbacks"):
            self.composer.warnings[f"hydra.callbacks are not called: {', '.join(section['callbacks'])}"] = None
        if changes_directory(kept, section["job"]["chdir"]) is True:
            self.composer.warnings["trials start in run.dir (hydra.job.chdir)"] = None
        return kept

    def compose(self, groups: Sequence[Setting]) -> Composition:
        """The config for a choice of group options. Of `sweep` it has only the resources that trials ask for."""
        section = {"resources": dict(self.spec.resources)}
        return self.composer.compose([*self.fixed, *_option_overrides(groups)], self.lenient, section=section)


def _option_overrides(groups: Sequence[Setting]) -> list[Parsed]:
    """Overrides that choose options. For `+group` with the option null there is none: the group is not appended."""
    return [as_override((key, option)) for key, option in groups if option is not None or not key.sigil]


class _Vocabulary:
    """Answers the axis reader's questions from the config folders."""

    def __init__(self, source: Source) -> None:
        self._source, self._composer = source, source.composer

    def is_group(self, path: str) -> bool:
        return self._composer.is_group(path)

    def options(self, group: str) -> Sequence[str]:
        return self._composer.options(group)

    def options_below(self, group: str) -> Sequence[str]:
        return self._composer.options_below(group)

    def groups(self) -> Sequence[str]:
        return self._composer.groups()

    def values(self, text: str, group: str | None) -> tuple[Sequence[Any] | Interval, bool]:
        found = self._composer.values(text, group)
        return found.rows, found.swept

    def _layout(self, chosen: Sequence[Setting]) -> Any:
        overrides = _option_overrides(chosen)
        names = {parsed.get_key_element().lstrip("+~") for parsed in overrides}
        known = [*self._source.fixed, *(p for p, new in self._source.replacing.values() if not new.varies)]
        known = [parsed for parsed in known if parsed.get_key_element().lstrip("+~") not in names]
        try:
            return self._composer.layout([*known, *overrides], partial=True)
        except ConfigError:  # one of the overrides names a group that only another option has
            return self._composer.layout([*self._source.fixed, *overrides], partial=True)

    def package(self, chosen: Sequence[Setting], group: str) -> str:
        return package_of(self._layout(chosen), group) or ""

    def nested(self, chosen: Sequence[Setting], path: str) -> str:
        known = self._layout(chosen).overrides.known_choices_per_group.get(path, ())
        return path if path in known or len(known) != 1 else str(next(iter(known)))


PARAMS = "hydra.sweeper.params"


def open_source(request: Request) -> Source:
    """Read a sweep file by the rules of the app's version of Hydra, and decide how each override is used.

    Which version that is, is known once the trainer is. So the file may have to be read again.
    """
    _check_file(request.file, request.config_dir)
    failure = None
    try:
        source = _read(request, NEWEST)
    except ConfigError as error:
        failure = error
        try:
            source = _read(request, OLDEST)
        except ConfigError:
            raise failure from None
    app = app_of(trainer.parse(source.spec.trainer), request.project)
    version = source.spec.version_base or app.version_base
    if failure is not None and version != OLDEST:
        raise failure
    if version is None:
        source.composer.refuse_doubt()
    elif version != source.composer.version_base:
        source = _read(request, version)
    source.app = app
    return source


def _read(request: Request, version: str) -> Source:
    file, overrides = request.file, request.overrides
    composer = Composer(file, overrides, request.config_dir, version)
    if not request.imported:
        composer.check_packages()
    section, fixed, replacing = _sort_overrides(composer)
    chosen = [parsed for parsed in section if parsed.key_or_group == "sweep"]
    if chosen and isinstance(chosen[0].value(), str) and not composer.is_group("sweep"):
        raise ConfigError(
            "there is no config group 'sweep' to choose from",
            where=f"override {chosen[0].input_line!r}",
            fix=f"add the file {file.parent / 'sweep' / str(chosen[0].value())}.yaml",
        )
    single = [parsed for parsed, new in replacing.values() if not new.varies]
    base = _base_composition(composer, fixed, single, chosen)
    values = [as_addition(parsed) for parsed in section if parsed.key_or_group != "sweep"]
    data = unresolved(base.with_overrides(values).config, str(file))["sweep"]
    option = base.choices.get("sweep")
    name = str(option).rpartition("/")[2] if option else file.stem
    spec = read(data, file, name)
    if base.choices.get("sweep"):
        fixed = [*fixed, *(_choice_of_section(parsed, base) for parsed in chosen)]
    return Source(file, overrides, composer, spec, fixed, replacing, App(), base)


def _choice_of_section(parsed: Parsed, base: Composition) -> Parsed:
    """`sweep=lr`, or `+sweep=lr` if the defaults list has no `sweep`."""
    return as_addition(parsed) if base.appended else parsed


def _check_file(file: Path, config_dir: Path | None) -> None:
    if file.is_dir() or not file.exists():
        here = [str(path.name) for path in file.parent.glob("*.yaml")] if file.parent.is_dir() else []
        close = nearest(file.name, here)
        raise ConfigError(
            "is a folder, not a sweep file" if file.is_dir() else "there is no such file",
            where=str(file),
            fix=f"did you mean {file.parent / close}?" if close else "name a YAML file, e.g. conf/sweep.yaml",
        )
    if file.suffix != ".yaml":
        raise ConfigError("Hydra reads only files that end in .yaml", where=str(file), fix="rename it")
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError("there is no such folder", where=str(config_dir), fix="name the folder of your config groups")


def _sort_overrides(composer: Composer) -> tuple[list[Parsed], list[Parsed], dict[str, tuple[Parsed, Replacement]]]:
    """The overrides of the `sweep` section, the fixed ones, and those that may replace an axis."""
    section, fixed, replacing = [], [], {}
    for parsed in composer.fixed:
        name = parsed.get_key_element().lstrip("+~")
        swept = parsed.is_sweep_override()
        if not name:
            raise ConfigError("an override has no key", where=repr(parsed.input_line), fix="write key=value")
        of_section = name.partition(".")[0] == "sweep"
        if swept and (of_section or name.partition(".")[0].partition("/")[0] == "hydra"):
            raise ConfigError(
                f"{name!r} cannot be swept: it is not part of a trial's config",
                where=f"override {parsed.input_line!r}",
                fix="give it one value (a list is written [a,b])",
            )
        if of_section:
            section.append(parsed)
            continue
        group = parsed.key_or_group if composer.is_group(parsed.key_or_group) else None
        is_mapping = isinstance(parsed.value(), dict)
        if parsed.is_delete() or parsed.is_hydra_override() or (is_mapping and not swept):
            fixed.append(parsed)
            continue
        values = composer.swept(parsed, group)
        sigil = parsed.get_key_element()[: -len(name)]
        replacing[name] = (as_choice(parsed) if group else parsed, Replacement(name, sigil, values.rows, values.swept))
    return section, fixed, replacing


def _base_composition(
    composer: Composer, fixed: Sequence[Parsed], single: Sequence[Parsed], chosen: Sequence[Parsed]
) -> Composition:
    """The composition from which the `sweep` section is read. `single`: overrides with one value.

    They may name keys and groups that only other options have. So they are applied as far as they fit; those that fit
    no trial are found out later, when trials are composed.
    """
    try:
        base = _with_section(composer, [*fixed, *single], (), chosen)
    except ConfigError as error:
        try:
            base = _with_section(composer, fixed, single, chosen)
        except ConfigError:
            raise error from None
    if not base.has_section():
        wandb_sweep.check(unresolved(base.config, str(composer.file)), str(composer.file))
        options = composer.options("sweep") if composer.is_group("sweep") else []
        fix = f"choose one: sweep={options[0]}" if options else "add one, with at least `trainer: module:function`"
        raise ConfigError("the config has no `sweep` section", where=str(composer.file), fix=fix)
    return base


def _with_section(
    composer: Composer, overrides: Sequence[Parsed], lenient: Sequence[Parsed], chosen: Sequence[Parsed]
) -> Composition:
    lenient = [parsed for parsed in lenient if not composer.is_group(parsed.key_or_group)]
    try:
        return composer.compose([*overrides, *chosen], lenient, partial=True)
    except ConfigError as error:
        if "Could not override 'sweep'" not in error.what:
            raise
        base = composer.compose([*overrides, *map(as_addition, chosen)], lenient, partial=True)
        return replace(base, appended=True)
