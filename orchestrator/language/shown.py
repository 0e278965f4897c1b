"""Resolves those references of a trial that are known before it starts: what Hydra will tell it. Secrets stay text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.errors import ConfigError
from orchestrator.language import hydra_values
from orchestrator.language.config_errors import suggest_key
from orchestrator.language.hydra_values import UNKNOWN, Section
from orchestrator.language.literal import escape
from orchestrator.language.plain_data import dotted_keys
from orchestrator.language.references import is_private


def check(references: Mapping[str, str], section: Section, where: str) -> None:
    """Refuse a reference to something that Hydra does not have."""
    for key, text in references.items():
        for path in hydra_values.paths_read(text):
            if not hydra_values.has(section, path):
                known = [name for name in dotted_keys(section) if not name.startswith("hydra_")]
                raise ConfigError(
                    f"${{hydra:{path}}} has no value: Hydra has no {path!r} here",
                    where=f"{where}: {key}",
                    fix=suggest_key(path, known),
                )


def known(
    config: Mapping[str, Any], references: Mapping[str, str], section: Section, secrets: Sequence[str]
) -> dict[str, Any]:
    """The values of the references that are known now, by dotted key."""
    tree = OmegaConf.create(escape(config))
    for key, text in references.items():
        OmegaConf.update(tree, key, UNKNOWN if is_private(key, text, secrets) else text, force_add=True)
    tree["hydra"] = hydra_values.added(section, hydra_values.UNTIL_THE_START)
    OmegaConf.register_new_resolver("hydra", lambda path: _look_up(tree, path), replace=True)
    OmegaConf.register_new_resolver("now", _unknown, replace=True)
    found = {}
    for key in references:
        with suppress(OmegaConfBaseException):
            value = OmegaConf.select(tree, key, throw_on_missing=True)
            found[key] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return found


def _look_up(tree: Any, path: str) -> Any:
    return OmegaConf.select(tree.hydra, path, throw_on_missing=True)


def _unknown(*_: Any) -> Any:
    raise LookupError("known when the trial starts")
