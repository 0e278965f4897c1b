"""How the name of a group's option is written: one rule for axes, `exclude` and the command line."""

from __future__ import annotations

from typing import Any

from orchestrator.errors import ConfigError


def option_name(value: Any, where: str) -> str | None:
    """The option that a value of YAML names: `0` is the option of the file `0.yaml`; null leaves the group out."""
    if isinstance(value, bool):
        raise ConfigError(
            f"YAML reads an unquoted no, off, on or yes as a boolean: an option was read as {value}",
            where=where,
            fix='quote the option\'s name: "no"',
        )
    return None if value is None else str(value)
