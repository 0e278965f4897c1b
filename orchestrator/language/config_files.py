"""Reads the files of the config folders, each once, as Hydra does; refuses those whose meaning is not certain."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from orchestrator.errors import ConfigError

# Hydra's groups of plugins. None of them is used here, so it does not matter which are installed.
PLUGINS = ("hydra/launcher", "hydra/sweeper", "hydra/hydra_logging", "hydra/job_logging")
# A config that has these sections. Others are merged into it, so that no schema of the whole config refuses a section.
SECTIONS = "orchestrate/sections"
_MOST_NODES = 1_000_000  # of one file, with its aliases written out
_ANCHOR, _ALIAS = re.compile(r"(?:^|[\s\[{,:-])&\S"), re.compile(r"(?:^|[\s\[{,:-])\*\S")


class Repository(CachingConfigRepository):  # type: ignore[misc]
    """Reads each config file once."""

    def __init__(self, delegate: ConfigRepository) -> None:
        super().__init__(delegate)
        self._doubt: ConfigError | None = None
        self._refuses_doubt = False

    def refuse_doubt(self) -> None:
        """From now on refuse files, also those read before, whose meaning depends on the version of Hydra's rules."""
        self._refuses_doubt = True
        if self._doubt is not None:
            raise self._doubt

    def load_config(self, config_path: str) -> Any:
        known = f"config_path={config_path}" in self.cache
        if not known:
            self._check_size(config_path)
        loaded = super().load_config(config_path)
        if loaded is None and config_path.rpartition("/")[0] in PLUGINS:
            loaded = ConfigResult("orchestrate", config_path, OmegaConf.create({}), {"package": None}, [])
        if loaded is not None and not known:
            self._doubt = self._doubt or _doubt(config_path, loaded)
            if self._doubt is not None and self._refuses_doubt:
                raise self._doubt
        return loaded

    def _check_size(self, config_path: str) -> None:
        source = self.delegate._find_object_source(config_path, ObjectType.CONFIG)
        if source is not None and source.scheme() == "file":
            file = Path(source.path) / ConfigSource._normalize_file_name(config_path)
            check_aliases(file.read_text(encoding="utf-8", errors="replace"), str(file))


def _doubt(config_path: str, loaded: Any) -> ConfigError | None:
    """Names what Hydra 1.1 takes for something else than later versions, and both without an error."""
    header = loaded.header.get("package") or ""
    packages = [default.package or "" for default in loaded.defaults_list or ()]
    odd = header if re.search("_group_|_name_", header) else next((name for name in packages if "_name_" in name), "")
    if not odd:
        return None
    written = f"the header '# @package {header}'" if odd == header else f"the package {odd!r} in its defaults list"
    return ConfigError(
        f"{written} has one meaning up to Hydra 1.1 and another later, and the trainer's source does not say which",
        where=f"{config_path}.yaml",
        fix="set sweep.version_base to what the app was written for, '1.1' or '1.3'",
    )


class CopyingRepository(CachingConfigRepository):  # type: ignore[misc]
    """Gives copies of the configs, because merging takes over nodes of the configs that it gets."""

    def __init__(self, delegate: Repository) -> None:
        self.delegate = delegate  # the base class would deep-copy it
        self._copies: dict[str, Callable[[], Any]] = {}

    def load_config(self, config_path: str) -> Any:
        if config_path == SECTIONS:
            sections: dict[str, Any] = {"hydra": {}, "sweep": {}}
            return ConfigResult(SECTIONS, SECTIONS, OmegaConf.create(sections), {"package": None}, [], True)
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


def check_aliases(text: str, where: str) -> None:
    """Refuse YAML whose aliases stand for so much that reading it would not end."""
    if not (_ANCHOR.search(text) and _ALIAS.search(text)):
        return
    try:
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return  # who reads it says what is wrong
    size = _expanded(root) if root is not None else 0
    if size > _MOST_NODES:
        what = f"its YAML aliases stand for more than {_MOST_NODES:,} values"
        what = "a YAML alias contains itself" if size == float("inf") else what
        raise ConfigError(what, where=where, fix="write out what is meant")


def _expanded(root: yaml.Node) -> float:
    """How many nodes there are once each alias is written out; infinite if one contains itself."""
    sizes: dict[int, float] = {}
    waiting = [(root, False)]
    while waiting:
        node, seen = waiting.pop()
        items = node.value if isinstance(node, yaml.CollectionNode) else ()
        children = [part for item in items for part in (item if isinstance(item, tuple) else (item,))]
        if seen:
            sizes[id(node)] = 1 + sum(sizes.get(id(child), float("inf")) for child in children)
        elif id(node) not in sizes:
            sizes[id(node)] = float("inf")
            waiting.append((node, True))
            waiting += [(child, False) for child in children if id(child) not in sizes]
    return sizes[id(root)]
