"""The space of a sweep: axes, and all assignments of values to their keys, in order and lazily.

An axis is one key with its values, or several linked keys with rows of values. An option of a group may have a body:
axes of its own, which apply only if that option is chosen. A space is a union of blocks of axes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Key:
    """What an axis sets: a dotted key of the config, or a config group (`db/engine`, `optimizer@train.opt`).

    Keys are compared by identity: two axes over the same key have two `Key` objects.
    """

    name: str
    group: bool = False
    sigil: str = ""  # the prefix in Hydra's overrides: "", "+" or "++"
    varies: bool = True  # False: the key is fixed to one value
    where: str = ""  # the place in the sweep file, for messages


Setting = tuple[Key, Any]
Assignment = tuple[Setting, ...]


@dataclass(frozen=True)
class Interval:
    """Numbers from `start` (included) to `end` (excluded). Only random search can draw from it."""

    start: float
    end: float
    log: bool = False
    integer: bool = False

    def draw(self, rng: random.Random) -> float | int:
        """A random number, uniformly distributed; if `log`, its logarithm is."""
        if self.log:
            number = math.exp(rng.uniform(math.log(self.start), math.log(self.end)))
        elif self.integer:
            return rng.randrange(int(self.start), int(self.end))
        else:
            number = rng.uniform(self.start, self.end)
        number = min(max(number, self.start), math.nextafter(self.end, self.start))
        return int(number) if self.integer else number


@dataclass(frozen=True, eq=False)
class Axis:
    """Alternatives for one key, or rows for several linked ones."""

    keys: tuple[Key, ...]
    rows: Sequence[Any] | Interval  # one key: its values; several keys: rows with a value for each
    bodies: tuple[tuple[Axis, ...], ...] = ()  # the body of each row; empty if no row has one

    def settings(self, row: Any) -> Assignment:
        """The settings that a row makes."""
        if len(self.keys) == 1:
            return ((self.keys[0], row),)
        return tuple(zip(self.keys, row, strict=True))

    def body(self, index: int) -> tuple[Axis, ...]:
        """The axes that apply only if this row is chosen."""
        return self.bodies[index] if self.bodies else ()


Block = tuple[Axis, ...]


@dataclass(frozen=True)
class Space:
    """The union of blocks of axes."""

    blocks: tuple[Block, ...]

    def walk(self) -> Iterator[Assignment]:
        """Every assignment. The first axis varies slowest."""
        for block in self.blocks:
            yield from _walk(block)

    def size(self) -> int | None:
        """How many assignments there are; None if an axis is an interval."""
        sizes = [_size(block) for block in self.blocks]
        return None if None in sizes else sum(size for size in sizes if size)

    def at(self, index: int) -> Assignment:
        """The assignment that `walk` yields at this index."""
        for block in self.blocks:
            size = _size(block) or 0
            if index < size:
                return _at(block, index)
            index -= size
        raise IndexError(index)

    def draw(self, rng: random.Random) -> Assignment:
        """A random assignment: the value of every axis is drawn independently."""
        return _draw(rng.choice(self.blocks), rng)

    def all_keys(self) -> Iterator[Key]:
        """All keys of all axes."""
        for block in self.blocks:
            for axis in _axes(block):
                yield from axis.keys

    def intervals(self) -> Iterator[Key]:
        """The keys that only random search can draw."""
        for block in self.blocks:
            yield from (axis.keys[0] for axis in _axes(block) if isinstance(axis.rows, Interval))


def _axes(block: Block) -> Iterator[Axis]:
    for axis in block:
        yield axis
        for body in axis.bodies:
            yield from _axes(body)


def _walk(block: Block) -> Iterator[Assignment]:
    if not block:
        yield ()
        return
    head, rest = block[0], block[1:]
    assert not isinstance(head.rows, Interval)
    if not rest and not head.bodies:  # fast path for the innermost loop, where nearly all time is spent
        for row in head.rows:
            yield head.settings(row)
        return
    for index, row in enumerate(head.rows):
        settings = head.settings(row)
        for tail in _walk(head.body(index) + rest):
            yield settings + tail


def _axis_size(axis: Axis) -> int | None:
    """How many assignments an axis has by itself, with the bodies of its rows; None if it is an interval."""
    if isinstance(axis.rows, Interval):
        return None
    if not axis.bodies:
        return len(axis.rows)
    sizes = [_size(body) for body in axis.bodies]
    return None if None in sizes else sum(size for size in sizes if size)


def _size(block: Block) -> int | None:
    total = 1
    for axis in block:
        size = _axis_size(axis)
        if size is None:
            return None
        total *= size
    return total


def _at(block: Block, index: int) -> Assignment:
    if not block:
        return ()
    head, rest = block[0], block[1:]
    assert not isinstance(head.rows, Interval)
    inner = _size(rest) or 0
    if not head.bodies:
        row, index = divmod(index, inner)
        return head.settings(head.rows[row]) + _at(rest, index)
    for position, row in enumerate(head.rows):
        size = (_size(head.bodies[position]) or 0) * inner
        if index < size:
            return head.settings(row) + _at(head.bodies[position] + rest, index)
        index -= size
    raise IndexError(index)


def _draw(block: Block, rng: random.Random) -> Assignment:
    drawn: Assignment = ()
    for axis in block:
        if isinstance(axis.rows, Interval):
            drawn += axis.settings(axis.rows.draw(rng))
            continue
        index = rng.randrange(len(axis.rows))
        drawn += axis.settings(axis.rows[index]) + _draw(axis.body(index), rng)
    return drawn
