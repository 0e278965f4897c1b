"""Writes config folders for tests, composes them with Hydra itself, and writes overrides as text."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf

SWEEP = "sweep:\n  trainer: trainers.toy:train\n  axes:\n"


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write config files; returns the sweep file, the first one."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / next(iter(files))


def quoted(value: Any) -> str:
    """A value in Hydra's override grammar, which parses it back to the same value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        special = {"nan": "nan", "inf": "inf", "-inf": "-inf"}
        return special[str(value)] if not math.isfinite(value) else repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ",".join(map(quoted, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{quoted(item)}" for key, item in value.items()) + "}"
    if value.startswith("${") and value.endswith("}"):
        return str(value)
    text, run = "", 0  # backslashes before a quote are doubled and the quote is escaped
    for char in value + "'":
        if char == "'":
            text += "\\" * run
        run = run + 1 if char == "\\" else 0
        text += "\\'" if char == "'" else char
    return f"'{text[:-2]}'"


def line(key: str, value: Any, groups: Sequence[str] = (), sigil: str = "") -> str:
    """One override as text: an option without quotes, a value with quotes."""
    if key in groups:
        return f"~{key}" if value is None else f"{sigil}{key}={_option(value)}"
    return f"{sigil}{key}={quoted(value)}"


def _option(value: Any) -> str:
    return "[" + ",".join(value) + "]" if isinstance(value, list) else str(value)


def _composed(file: Path, overrides: Sequence[str], version_base: str) -> Any:
    with hydra.initialize_config_dir(str(file.parent.absolute()), version_base=version_base):
        return hydra.compose(file.stem, list(overrides))


def composed(file: Path, overrides: Sequence[str], version_base: str = "1.3") -> dict[str, Any]:
    """What Hydra's `compose` gives, resolved, without `sweep`."""
    with warnings.catch_warnings():  # of what Hydra 1.4 will not read any more
        warnings.simplefilter("ignore")
        config = _composed(file, overrides, version_base)
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    if "sweep" in plain:
        OmegaConf.set_struct(config, False)
        config.pop("sweep")
    resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True, enum_to_str=True)
    assert isinstance(resolved, dict)
    return resolved


def as_hydra_composes(
    file: Path, overrides: Sequence[str], references: Mapping[str, str], version_base: str
) -> dict[str, Any]:
    """What Hydra's `compose` gives: the config, with these references unresolved, and what is told of the job."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with hydra.initialize_config_dir(str(file.parent.absolute()), version_base=version_base):
            config = hydra.compose(file.stem, list(overrides), return_hydra_config=True)
    job = config.hydra
    OmegaConf.set_struct(config, False)
    choices = {key: value for key, value in job.runtime.choices.items() if value is not None}
    told = {"choices": choices, "override_dirname": job.job.override_dirname}
    for key in ("sweep", "hydra"):
        config.pop(key)
    plain = OmegaConf.to_container(config, resolve=False)
    for key, text in references.items():
        node = plain
        for part in key.split("."):
            node = node[int(part) if isinstance(node, list) else part]
        assert node == text, key
        OmegaConf.update(config, key, text.replace("${", "\\${"))
    return {**told, "config": OmegaConf.to_container(config, resolve=True, enum_to_str=True)}
