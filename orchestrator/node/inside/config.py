"""The `cfg` that a trainer is called with: plain data as an OmegaConf config, with references resolved on this node."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.errors import ConfigError
from orchestrator.model.order import Order
from orchestrator.node.shared.trial_paths import TrialPaths

_Change = tuple[Any, Any, Any]  # a DictConfig or ListConfig, a key of it, its value
_INTERPOLATION = re.compile(r"(\\*)\$\{")


def resolve(config: DictConfig, order: Order, paths: TrialPaths) -> None:
    """Set each key of `order.references` to what its text resolves to here. Raises ConfigError if one does not."""
    _register_resolvers(order, paths)
    OmegaConf.set_struct(config, False)
    for key, text in order.references.items():
        OmegaConf.update(config, key, text, force_add=True)
    for key, text in order.references.items():
        try:
            value = OmegaConf.select(config, key, throw_on_missing=True)
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{text} does not resolve on this node: {reason}", where=key) from None
        OmegaConf.update(config, key, escape(value), force_add=True)
    OmegaConf.set_struct(config, True)


def create(data: Mapping[str, Any]) -> DictConfig:
    """Plain data as a config whose values can be changed, but that takes no new keys. All text is literal."""
    config: DictConfig = OmegaConf.create(escape(data))
    OmegaConf.set_struct(config, True)
    return config


class ReusedConfig:
    """The configs of one trial after another, in one object: a config is valid until the next one is asked for.

    Where two trials differ in some values only, as they mostly do in a sweep, only these values are set. That takes a
    tenth of the time of a new config.
    """

    def __init__(self) -> None:
        self._data: Mapping[str, Any] = {}
        self._config = create({})

    def of(self, data: Mapping[str, Any]) -> DictConfig:
        """A config that equals `create(data)`."""
        changes: list[_Change] = []
        if not _only_values_differ(self._config, self._data, data, changes):
            self._config = create(data)
        for holder, key, value in changes:
            holder._get_node(key)._set_value(value)
        self._data = data
        return self._config


def _only_values_differ(node: Any, before: Any, after: Any, changes: list[_Change]) -> bool:
    """Whether only values differ, none of which needs `escape`. Adds them to `changes`; clears `changes` if not."""
    if isinstance(before, dict) and isinstance(after, dict) and list(before) == list(after):
        keys: Iterable[Any] = before
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        keys = range(len(before))
    else:
        changes.clear()
        return False
    for key in keys:
        old, new = before[key], after[key]
        if isinstance(old, (dict, list)):
            if not _only_values_differ(node[key], old, new, changes):
                return False
        elif isinstance(new, (dict, list)) or (isinstance(new, str) and ("$" in new or new == "???")):
            changes.clear()
            return False
        elif repr(old) != repr(new):  # `==` takes 1, 1.0 and True for the same
            changes.append((node, key, new))
    return True


def escape(value: Any) -> Any:
    """The same data with each `${` escaped, so that OmegaConf takes it as text."""
    if isinstance(value, str):
        return _INTERPOLATION.sub(lambda found: found[1] * 2 + r"\${", value) if "${" in value else value
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        return {key: escape(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [escape(item) for item in value]
    return value


def imitate_hydra(order: Order, paths: TrialPaths) -> None:
    """Set up `HydraConfig.get()` and Hydra's logging, if the trainer has imported Hydra."""
    if "hydra.core.hydra_config" not in sys.modules:
        return
    node = OmegaConf.structured(sys.modules["hydra.conf"].HydraConf)
    for key, value in _job(order, paths).items():
        for name, item in value.items():
            OmegaConf.update(node, f"{key}.{name}", item)
    holder = sys.modules["hydra.core.hydra_config"].HydraConfig.instance()
    holder.cfg = OmegaConf.create({"hydra": node})
    form = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stdout)


def _job(order: Order, paths: TrialPaths) -> dict[str, dict[str, Any]]:
    """What Hydra's own config would say of this trial."""
    name = order.trainer.module.rpartition(".")[2]
    return {
        "job": {"num": 0, "id": order.trial_id, "name": name},
        "runtime": {"cwd": os.getcwd(), "output_dir": str(paths.files)},
        "run": {"dir": str(paths.files)},
    }


def _register_resolvers(order: Order, paths: TrialPaths) -> None:
    """Register Hydra's `now` and `hydra` for this trial; `oc.env` and the like come with OmegaConf."""
    hydra = OmegaConf.create(_job(order, paths))

    def look_up(path: str) -> Any:
        value = OmegaConf.select(hydra, path)
        if value is None:
            raise KeyError(f"hydra.{path} is not defined in a trial")
        return value

    now = time.localtime()
    OmegaConf.register_new_resolver("now", lambda form: time.strftime(form, now), replace=True)
    OmegaConf.register_new_resolver("hydra", look_up, replace=True)
