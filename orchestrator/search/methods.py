"""How assignments are taken from a space, by the name that `sweep.search.method` gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orchestrator.search.random import draw
from orchestrator.search.space import Assignment, Space


def walk(space: Space, seed: int) -> Iterator[Assignment]:
    """The whole space in order, the first axis slowest."""
    del seed  # nothing is drawn
    return space.walk()


# The assignments of a space in order, lazily; the same ones for the same seed.
Method = Callable[[Space, int], Iterator[Assignment]]

METHODS: dict[str, Method] = {"grid": walk, "random": draw}
