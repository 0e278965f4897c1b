"""From OmegaConf's nodes to plain data: unresolved, resolved, and what a node takes."""

from __future__ import annotations

import enum
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import BooleanNode, DictConfig, FloatNode, IntegerNode, ListConfig, OmegaConf, StringNode
from omegaconf.nodes import AnyNode

from orchestrator.errors import ConfigError
from orchestrator.language.config_errors import close_to, explained
from orchestrator.language.references import Path, dotted

_EXACT: Mapping[type, type] = {IntegerNode: int, FloatNode: float, StringNode: str, BooleanNode: bool}


def unresolved(config: DictConfig, where: str) -> dict[Any, Any]:
    """Plain data, with interpolations as text."""
    with explained(where):
        tree: dict[Any, Any] = _simple(OmegaConf.to_container(config, resolve=False), (), where)
    return tree


def resolved(config: DictConfig, kept: Mapping[Path, str], where: str) -> dict[Any, Any]:
    """Plain data, with every interpolation resolved but those to be kept as text."""
    try:
        tree: dict[Any, Any] = _resolve(config, (), kept, where)
    except RecursionError:
        raise ConfigError("an interpolation refers to itself", where=where) from None
    except ConfigError as error:
        if error.fix is None and "Interpolation key" in error.what:
            name = error.what.split("'")[1]
            fix = close_to(name, list(keys(unresolved(config, where))))
            raise ConfigError(error.what, where=error.where, fix=fix) from error
        raise
    return tree


def _items(config: Any) -> Iterator[Any]:
    return iter(range(len(config))) if isinstance(config, ListConfig) else iter(list(config.keys()))


def _resolve(config: Any, path: Path, kept: Mapping[Path, str], where: str) -> Any:
    if not isinstance(config, (DictConfig, ListConfig)):
        return _leaf(config, path, where)
    found: dict[Any, Any] = {}
    for key in _items(config):
        inner = (*path, _key(key, path, where))
        if inner in kept:
            found[inner[-1]] = kept[inner]
            continue
        if OmegaConf.is_missing(config, key):
            raise ConfigError(
                f"{dotted(inner)!r} is mandatory (???), and has no value", where=where, fix=f"set {dotted(inner)}=…"
            )
        elsewhere = OmegaConf.is_interpolation(config, key)
        with explained(f"{where}: {dotted(inner)}"):
            child = config[key]
        found[inner[-1]] = _resolve(child, inner, {} if elsewhere else kept, where)
    return list(found.values()) if isinstance(config, ListConfig) else found


def _simple(value: Any, path: Path, where: str) -> Any:
    if isinstance(value, dict):
        return {_key(k, path, where): _simple(v, (*path, k), where) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_simple(item, (*path, i), where) for i, item in enumerate(value)]
    return _leaf(value, path, where)


def _key(key: Any, path: Path, where: str) -> Any:
    return _leaf(key, path, where)


def _leaf(value: Any, path: Path, where: str) -> Any:
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, dict | list | tuple):  # a resolver's plain result
        return _simple(value, path, where)
    raise ConfigError(
        f"{dotted(path)!r} holds {type(value).__name__}, which is no plain data",
        where=where,
        fix="use text, numbers, booleans, null, lists and mappings",
    )


def accepts(config: DictConfig, path: Sequence[str]) -> type | None:
    """The type of value that can be put at a path as it is: `object` for any; None where OmegaConf must decide."""
    node: Any = config
    for part in path[:-1]:
        if not isinstance(node, DictConfig) or part not in node or node._is_interpolation():
            return None
        node = node._get_node(part)
    if not isinstance(node, DictConfig) or node._is_interpolation() or node._is_none() or node._is_missing():
        return None
    if node._get_flag("readonly"):
        return None
    last = node._get_node(path[-1], validate_access=False)
    if last is None:
        return object if node._metadata.element_type in (Any, None) else None
    if type(last) in _EXACT:
        return _EXACT[type(last)]
    if isinstance(last, (DictConfig, ListConfig)):
        free = last._metadata.ref_type in (Any, None) and last._metadata.object_type in (dict, list, None)
        return object if free and last._metadata.element_type in (Any, None) else None
    return object if type(last) is AnyNode else None


def keys(tree: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of plain data."""
    if isinstance(tree, Mapping):
        for key, child in tree.items():
            yield f"{prefix}{key}"
            yield from keys(child, f"{prefix}{key}.")
