"""Assignments in a random order that the seed fixes; asking for more of them only adds to it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

from orchestrator.search.space import Assignment, Space


class RandomSearch:
    """A finite space is shuffled, so that nothing comes twice; one with an interval is drawn from for ever."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed

    def ask(self) -> Iterator[Assignment]:
        """Assignments in order, lazily; the same ones each time."""
        size = self._space.size()
        if size is None:
            rng = random.Random(self._seed)
            while True:
                yield self._space.draw(rng)
        for index in range(size):
            yield self._space.at(shuffled(index, size, self._seed))

    def tell(self, trial_id: str, objective: float | None) -> None:
        """Random search learns nothing."""


def shuffled(index: int, size: int, seed: int) -> int:
    """Where a number below `size` goes in a permutation of them all, kept nowhere.

    A Feistel network permutes the next power of four; numbers that leave the range go round again.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(6):
            key = hashlib.blake2b(f"{seed}:{size}:{turn}:{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(key, "big") & mask)
        index = (left << half) | right
        if index < size:
            return index
