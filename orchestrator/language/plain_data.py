"""Converts OmegaConf's nodes to plain data, and tells which values a node accepts."""

from __future__ import annotations

import enum
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from omegaconf import BooleanNode, DictConfig, FloatNode, IntegerNode, ListConfig, OmegaConf, StringNode
from omegaconf.nodes import AnyNode, EnumNode, PathNode

from orchestrator.errors import ConfigError
from orchestrator.language.config_errors import as_config_error, suggest_key
from orchestrator.language.references import Path, dotted

_EXACT: Mapping[type, type] = {IntegerNode: int, FloatNode: float, StringNode: str, BooleanNode: bool}


def unresolved(config: DictConfig, where: str) -> dict[Any, Any]:
    """A config as plain data, with interpolations as text."""
    with as_config_error(where):
        tree: dict[Any, Any] = _simple(OmegaConf.to_container(config, resolve=False), (), where)
    return tree


def resolved(config: DictConfig, kept: Mapping[Path, str], where: str) -> dict[Any, Any]:
    """A config as plain data, with interpolations resolved, except those in `kept`, which stay text."""
    try:
        tree: dict[Any, Any] = _resolve(config, (), kept, where)
    except RecursionError:
        raise ConfigError(
            "an interpolation refers to itself", where=where, fix="give one of its keys a value"
        ) from None
    except ConfigError as error:
        if error.fix is None and "Interpolation key" in error.what:
            name = error.what.split("'")[1]
            fix = suggest_key(name, list(dotted_keys(unresolved(config, where))))
            raise ConfigError(error.what, where=error.where, fix=fix) from error
        if missing := re.search(r"Missing mandatory value: ([^\s;]+)", error.what):
            what = f"it refers to {missing[1]!r}, which is mandatory (???) but has no value"
            raise ConfigError(what, where=error.where, fix=_way_out(missing[1])) from error
        raise
    return tree


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment meanwhile, for `${oc.env:…}`."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _items(config: Any) -> Iterator[Any]:
    return iter(range(len(config))) if isinstance(config, ListConfig) else iter(list(config.keys()))


def _resolve(config: Any, path: Path, kept: Mapping[Path, str], where: str) -> Any:
    if not isinstance(config, (DictConfig, ListConfig)):
        return _leaf(config, path, where)
    found: dict[Any, Any] = {}
    for key in _items(config):
        inner = (*path, _leaf(key, path, where))
        if inner in kept:
            found[inner[-1]] = kept[inner]
            continue
        if OmegaConf.is_missing(config, key):
            raise ConfigError(
                f"{dotted(inner)!r} is mandatory (???) but has no value",
                where=where,
                fix=_way_out(dotted(inner)),
            )
        interpolated = OmegaConf.is_interpolation(config, key)
        with as_config_error(f"{where}: {dotted(inner)}"):
            child = config[key]
        found[inner[-1]] = _resolve(child, inner, {} if interpolated else kept, where)
    return list(found.values()) if isinstance(config, ListConfig) else found


def given_as_text(config: DictConfig | ListConfig) -> list[str]:
    """Values that a schema gives another type, which plain data lacks: each key with the name of that type."""
    found = []
    for key in () if config._is_none() or config._is_missing() or config._is_interpolation() else _items(config):
        node = config._get_node(key)
        if isinstance(node, (DictConfig, ListConfig)):
            found += [f"{key}.{inner}" for inner in given_as_text(node)]
        elif isinstance(node, EnumNode):
            found.append(f"{key} ({node.enum_type.__name__})")
        elif isinstance(node, PathNode):
            found.append(f"{key} (Path)")
    return found


def _way_out(key: str) -> str:
    return f"set {key}=…, or list it in sweep.allow_missing if the trainer fills it"


def _simple(value: Any, path: Path, where: str) -> Any:
    if isinstance(value, dict):
        return {_leaf(k, path, where): _simple(v, (*path, k), where) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_simple(item, (*path, i), where) for i, item in enumerate(value)]
    return _leaf(value, path, where)


def _leaf(value: Any, path: Path, where: str) -> Any:
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, dict | list | tuple):  # the result of a resolver
        return _simple(value, path, where)
    raise ConfigError(
        f"{dotted(path)!r} is a {type(value).__name__}, which is not plain data",
        where=where,
        fix="use text, numbers, booleans, null, lists and mappings",
    )


def accepted_type(config: DictConfig, path: Sequence[str]) -> type | None:
    """The type of values that can be set at a path unchanged: `object` for any type, None if OmegaConf must decide."""
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


def with_values(tree: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """A copy of plain data in which some dotted keys have other values."""
    if prefix[:-1] in values:
        return values[prefix[:-1]]
    if isinstance(tree, Mapping):
        return {key: with_values(item, values, f"{prefix}{key}.") for key, item in tree.items()}
    if isinstance(tree, list):
        return [with_values(item, values, f"{prefix}{index}.") for index, item in enumerate(tree)]
    return tree


def dotted_keys(tree: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of plain data."""
    if isinstance(tree, Mapping):
        for key, child in tree.items():
            yield f"{prefix}{key}"
            yield from dotted_keys(child, f"{prefix}{key}.")
