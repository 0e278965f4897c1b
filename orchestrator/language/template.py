"""Rendering trials quickly: a resolved config with holes, filled with each trial's values. Pure.

A template is made only where filling it is certain to give what composing would: interpolations that
depend on a hole must be plain `${a.b}`, and no other resolver than a constant `${oc.env:NAME}` may occur.
Configs share what no hole touches: they are read, not written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.language.identity import MARK, Hole, Omit, canonical, identity_text
from orchestrator.language.references import Path, dotted, interpolates, leaves, targets, touch

_NODE = re.compile(r"\$\{\s*\.*[^{}:$\\]+\}")
_ENV = re.compile(r"\$\{\s*oc\.env\s*:\s*\w+\s*(?:,[^{}$\\]*)?\}")
_ATOMS = (int, float, bool, type(None))

Piece = str | int | tuple[str]  # text; the index of a value; the text of a constant, in a tuple


class Text:
    """An identity text with holes, hashed from the first hole on."""

    def __init__(self, marked: str) -> None:
        parts = marked.split(MARK)
        self._order = [int(index) for index in parts[1::2]]
        self._rest = parts[1:]
        self._start = hashlib.sha256(parts[0].encode("utf-8", "surrogatepass"))

    def digest(self, encoded: Sequence[str]) -> str:
        """The id for values in canonical JSON."""
        rest = self._rest
        rest[0::2] = [encoded[index] for index in self._order]
        state = self._start.copy()
        state.update("".join(rest).encode("utf-8", "surrogatepass"))
        return state.hexdigest()[:12]


@dataclass(frozen=True)
class Template:
    """A config with holes: first the swept keys', then those of interpolations that depend on them."""

    base: Mapping[Any, Any]
    paths: tuple[Path, ...]  # of all holes
    swept: int  # how many of them are swept keys
    accepts: tuple[type, ...]  # for each swept key
    pieces: tuple[tuple[Piece, ...], ...]  # for each dependent hole, what it is made of
    copies: tuple[tuple[int, Any], ...] = field(init=False)  # containers on the way to holes: (parent, key)
    puts: tuple[tuple[int, Any, int], ...] = field(init=False)  # (container, key, hole)

    def __post_init__(self) -> None:
        places: dict[Path, int] = {(): 0}
        copies, puts = [], []
        for index, path in enumerate(self.paths):
            for end in range(1, len(path)):
                if path[:end] not in places:
                    copies.append((places[path[: end - 1]], path[end - 1]))
                    places[path[:end]] = len(copies)
            puts.append((places[path[:-1]], path[-1], index))
        object.__setattr__(self, "copies", tuple(copies))
        object.__setattr__(self, "puts", tuple(puts))

    def fill(self, values: Sequence[Any]) -> list[Any] | None:
        """The values of all holes, or None where only composing can tell."""
        for value, wanted in zip(values, self.accepts, strict=True):
            if wanted is not object and type(value) is not wanted:
                return None
            if type(value) not in _ATOMS and not _literal(value):
                return None
        filled = list(values)
        for pieces in self.pieces:
            if len(pieces) == 1:
                filled.append(filled[pieces[0]])  # type: ignore[index]
                continue
            texts = []
            for piece in pieces:
                part = filled[piece] if type(piece) is int else piece if type(piece) is str else piece[0]  # type: ignore[index]
                if isinstance(part, list):
                    return None
                texts.append(str(part))
            filled.append("".join(texts))
        return filled

    def build(self, filled: Sequence[Any]) -> dict[Any, Any]:
        """The config with its holes filled; it shares every container without one."""
        config = dict(self.base)
        nodes: list[Any] = [config]
        for parent, key in self.copies:
            child = nodes[parent][key].copy()
            nodes[parent][key] = child
            nodes.append(child)
        for node, key, hole in self.puts:
            nodes[node][key] = filled[hole]
        return config

    def text(self, trainer: str, omit: Omit) -> Text:
        """The identity text of the config, without its `sweep` section."""
        holed = self.build([Hole(index) for index in range(len(self.paths))])
        holed.pop("sweep", None)
        return Text(identity_text(trainer, holed, omit))

    def hole(self, path: Sequence[str]) -> int | None:
        """Which hole stands at a path."""
        wanted = tuple(path)
        return next((i for i, known in enumerate(self.paths) if tuple(map(str, known)) == wanted), None)


def _literal(value: Any) -> bool:
    if isinstance(value, str):
        return "${" not in value and value != "???"
    if isinstance(value, list):
        return all(type(item) in _ATOMS or _literal(item) for item in value)
    return False


def make(
    raw: Mapping[Any, Any],
    resolved: Mapping[Any, Any],
    holes: Sequence[Path],
    accepts: Sequence[type | None],
    kept: Collection[Path],
    free: Mapping[Path, bool] | None = None,
) -> Template | None:
    """A template, or None if filling one might differ from composing.

    `raw` and `resolved` are one trial's config; `kept` are paths that stay as they are written.
    """
    if None in accepts or any(touch(a, b) for i, a in enumerate(holes) for b in holes[:i]):
        return None
    texts = {path: v for path, v in leaves(raw) if interpolates(v) and path not in kept}
    if any("${" in _NODE.sub("", _ENV.sub("", v)) or "\\" in v for v in texts.values()):
        return None
    names = [tuple(map(str, path)) for path in holes]
    order = _dependents(texts, names)
    if order is None or any(touch(tuple(map(str, path)), hole) for path in kept for hole in names):
        return None
    index = {name: i for i, name in enumerate(names)}
    pieces = []
    for path in order:
        made = _pieces(texts[path], path, index, resolved)
        if made is None or (free is not None and not free.get(path, True)):
            return None
        pieces.append(made)
        index[tuple(map(str, path))] = len(index)
    types = tuple(kind for kind in accepts if kind is not None)
    return Template(resolved, (*holes, *order), len(holes), types, tuple(pieces))


def _dependents(texts: Mapping[Path, str], holes: Sequence[tuple[str, ...]]) -> list[Path] | None:
    """Interpolations that depend on holes, each after those it reads; None if a part of a hole is read."""
    reads = {path: targets(text, path) for path, text in texts.items()}
    waiting = _closure(reads, holes)
    exact = set(holes)
    order: list[Path] = []
    while waiting:
        ready = [p for p in waiting if not any(touch(name, _named(o)) for name in reads[p] for o in waiting)]
        for path in ready:
            if any(name not in exact and touch(name, hole) for name in reads[path] for hole in exact):
                return None
        if not ready:
            return None
        order += ready
        exact |= {_named(path) for path in ready}
        waiting = [path for path in waiting if path not in ready]
    return order


def _named(path: Path) -> tuple[str, ...]:
    return tuple(map(str, path))


def _closure(reads: Mapping[Path, Sequence[tuple[str, ...]]], holes: Sequence[tuple[str, ...]]) -> list[Path]:
    """Interpolations that read a hole, or another one that does."""
    names = set(holes)
    found: list[Path] = []
    while True:
        more = [p for p in reads if p not in found and any(touch(t, name) for t in reads[p] for name in names)]
        if not more:
            return found
        found += more
        names |= {_named(path) for path in more}


def _pieces(
    text: str, path: Path, index: Mapping[tuple[str, ...], int], resolved: Mapping[Any, Any]
) -> tuple[Piece, ...] | None:
    """What a dependent interpolation is made of: one index alone, or at least two pieces of text."""
    pieces: list[Piece] = []
    end = 0
    for found in _NODE.finditer(text):
        pieces.append(text[end : found.start()])
        name = targets(found.group(), path)[0]
        if name in index:
            pieces.append(index[name])
        else:
            constant = _at(resolved, name)
            if isinstance(constant, (Mapping, list)) or constant is _ABSENT:
                return None
            pieces.append((str(constant),))
        end = found.end()
    pieces.append(text[end:])
    if "${" in text[end:] or any(isinstance(p, str) and "${" in p for p in pieces):
        return None
    if len(pieces) == 3 and pieces[0] == pieces[2] == "":
        return (pieces[1],) if isinstance(pieces[1], int) else None
    return tuple(pieces)


_ABSENT = object()


def _at(tree: Any, name: Sequence[str]) -> Any:
    for part in name:
        if not isinstance(tree, Mapping) or part not in tree:
            return _ABSENT
        tree = tree[part]
    return tree


def same(one: Any, other: Any) -> bool:
    """Whether two configs are equal to a trainer: types count."""
    return canonical(one) == canonical(other)


__all__ = ["Template", "Text", "dotted", "make", "same"]
