"""The `cfg` that a trainer is called with: plain data as an OmegaConf config. `references` resolves what is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from orchestrator.language.literal import escape

_Change = tuple[Any, Any, Any]  # a DictConfig or ListConfig, a key of it, its value


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
