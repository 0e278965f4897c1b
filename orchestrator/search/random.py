"""Assignments in a random order that the seed fixes; asking for more of them only adds to it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

from orchestrator.search.space import Assignment, Space


def draw(space: Space, seed: int) -> Iterator[Assignment]:
    """A finite space is shuffled, so that nothing comes twice; one with an interval is drawn from without end."""
    size = space.size()
    if size is None:
        rng = random.Random(seed)
        while True:
            yield space.draw(rng)
    for index in range(size):
        yield space.at(shuffled(index, size, seed))


def shuffled(index: int, size: int, seed: int) -> int:
    """Where a permutation of the numbers below `size` puts `index`; the permutation is computed, not stored.

    A Feistel network permutes the next power of four; a result outside the range is permuted again.
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
