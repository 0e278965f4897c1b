"""Environment variables of Ray and its workers.

Ray reads them when it is imported: set them before `executors.ray.executor` is.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from orchestrator.node.launch import zygote_sharing


def prepare(address: str | None) -> str | None:
    """Set them for a cluster of our own, or for joining one; returns the address to join, or None."""
    os.environ[zygote_sharing.NAME] = zygote_sharing.new_name()  # for the workers of this run alone
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # indices as the driver lists them, not by speed
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address in (None, "local"):
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # for this cluster alone; nothing writes it down
        os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112 - it kills workers for what their trials use
        os.environ.pop("RAY_ADDRESS", None)
        return None
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")  # we report errors ourselves, once
    if "RAY_AUTH_MODE" not in os.environ and _token_known():
        os.environ["RAY_AUTH_MODE"] = "token"
    return address


def _token_known() -> bool:
    """Whether this user has a token: without one, a cluster that demands it only says "Failed to connect"."""
    named = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return named or (Path.home() / ".ray" / "auth_token").is_file()
