"""Overrides of Hydra: what they are about, and settings written as overrides."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.override_parser.types import Override, OverrideType, Quote, QuotedString, ValueType

from orchestrator.language.config_files import PLUGINS
from orchestrator.search.space import Setting

BELOW_PLUGINS = tuple(f"{group}/" for group in PLUGINS)


def is_of_plugin(parsed: Override) -> bool:
    """Whether an override is about a plugin's own groups or settings."""
    key: str = parsed.key_or_group
    return key.startswith((*BELOW_PLUGINS, "hydra.launcher.", "hydra.sweeper."))


def of_hydra(parsed: Override) -> bool:
    """Whether an override is about the `hydra` section or one of Hydra's groups."""
    return bool(parsed.is_hydra_override() or parsed.key_or_group == "hydra")


def overrides_dirname(overrides: Sequence[Override], form: Mapping[str, Any]) -> str:
    """`hydra.job.override_dirname`; `form`: `hydra.job.config.override_dirname`."""
    name: str = get_overrides_dirname(list(overrides), form["exclude_keys"], form["item_sep"], form["kv_sep"])
    return name


_BARE = re.compile(r"[A-Za-z_][\w/-]*")


def as_text(value: Any) -> str:
    """A value in the grammar of overrides."""
    if isinstance(value, str):
        word = _BARE.fullmatch(value) and value.lower() not in ("null", "true", "false", "nan", "inf")
        return value if word else str(QuotedString(text=value, quote=Quote.single).with_quotes())
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(as_text, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def as_override(setting: Setting) -> Override:
    """A setting as an override of Hydra. The option null removes the group from the defaults list."""
    key, value = setting
    if not key.group:
        kind = {"": OverrideType.CHANGE, "+": OverrideType.ADD, "++": OverrideType.FORCE_ADD}[key.sigil]
        line = f"{key.sigil}{key.name}={as_text(value)}"
        return Override(kind, key.name, ValueType.ELEMENT, value, input_line=line)
    group, _, package = key.name.partition("@")
    at = package or None
    if value is None:
        return Override(OverrideType.DEL, group, None, None, at, f"~{key.name}")
    kind = OverrideType.ADD if key.sigil else OverrideType.CHANGE
    line = f"{key.sigil}{key.name}={'[' + ','.join(value) + ']' if isinstance(value, list) else value}"
    return Override(kind, group, ValueType.ELEMENT, value, at, line)


def as_choice(parsed: Override) -> Override:
    """The choice of an option. Hydra has no word for the option null but `~group`."""
    if parsed.type is not OverrideType.CHANGE or parsed.value() is not None:
        return parsed
    return replace(parsed, type=OverrideType.DEL, value_type=None, input_line=f"~{parsed.get_key_element()}")


def as_addition(parsed: Override) -> Override:
    """The override with `+`: it adds a missing key, or appends a group to the defaults list."""
    if parsed.is_delete():
        return parsed
    kind = OverrideType.ADD if parsed.key_or_group == "sweep" else OverrideType.FORCE_ADD
    return replace(parsed, type=kind)
