"""Whether and how W&B is wanted, as the environment and the sweep file say. Light: does not import wandb."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def mode(options: Mapping[str, Any]) -> str:
    """As the user's environment says, else the sweep file, else online."""
    return str(os.environ.get("WANDB_MODE") or options.get("mode") or "online")


def turned_off(options: Mapping[str, Any]) -> bool:
    return mode(options) in ("disabled", "off") or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1")
