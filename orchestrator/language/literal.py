"""Plain data whose texts OmegaConf takes literally."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

_INTERPOLATION = re.compile(r"(\\*)\$\{")


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
