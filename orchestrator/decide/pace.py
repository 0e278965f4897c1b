"""How often attempts send what they have to tell. Messages are dear, and rows in them cheap. Pure."""

from __future__ import annotations

LEAST = 0.25  # seconds between two messages of an attempt, when few are live
MESSAGES = 100  # a second, from all attempts together


def interval(least: float, live: int) -> float:
    """Seconds between two messages of each attempt, while so many are live."""
    return max(least, live / MESSAGES)
