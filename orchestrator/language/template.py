"""Renders trials quickly: a resolved config with placeholders, which are filled with each trial's values. Pure.

A template is made only if filling it certainly gives the same config as composing: interpolations that depend on a
placeholder must be plain `${a.b}`, and the only resolver that may occur is a constant `${oc.env:NAME}`.
The configs of several trials share the parts without placeholders; nobody writes to them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.language.identity import MARK, Omit, Placeholder, canonical, identity_text, with_sources
from orchestrator.language.references import Path, interpolates, leaves, overlap, paths_read

_NODE = re.compile(r"\$\{\s*\.*[^{}:$\\]+\}")
_ENV = re.compile(r"\$\{\s*oc\.env\s*:\s*\w+\s*(?:,[^{}$\\]*)?\}")
_ATOMS = (int, float, bool, type(None))

Piece = str | int | tuple[str]  # literal text; the index of a placeholder; a constant as text, in a tuple


class IdentityText:
    """An identity text with placeholders. The part before the first placeholder is hashed only once."""

    def __init__(self, marked: str) -> None:
        parts = marked.split(MARK)
        self._order = [int(index) for index in parts[1::2]]
        self._rest = parts[1:]
        self._start = hashlib.sha256(parts[0].encode("utf-8", "surrogatepass"))

    def digest(self, encoded: Sequence[str]) -> str:
        """The id for these values of the placeholders, in canonical JSON."""
        rest = self._rest
        rest[0::2] = [encoded[index] for index in self._order]
        state = self._start.copy()
        state.update("".join(rest).encode("utf-8", "surrogatepass"))
        return state.hexdigest()[:12]


@dataclass(frozen=True)
class Template:
    """A config with placeholders: first for the swept keys, then for interpolations that depend on them."""

    base: Mapping[Any, Any]
    paths: tuple[Path, ...]  # of all placeholders, in order
    swept: int  # how many of them are swept keys
    accepted: tuple[type, ...]  # for each swept key, the type of value that can be filled in; `object` for any
    pieces: tuple[tuple[Piece, ...], ...]  # for each interpolation, the pieces of its text
    # The containers that hold placeholders, each as (index of its parent, key): they are copied for every trial.
    copies: tuple[tuple[int, Any], ...] = field(init=False)
    assignments: tuple[tuple[int, Any, int], ...] = field(init=False)  # (container, key, placeholder)

    def __post_init__(self) -> None:
        indices: dict[Path, int] = {(): 0}
        copies, assignments = [], []
        for index, path in enumerate(self.paths):
            for end in range(1, len(path)):
                if path[:end] not in indices:
                    copies.append((indices[path[: end - 1]], path[end - 1]))
                    indices[path[:end]] = len(copies)
            assignments.append((indices[path[:-1]], path[-1], index))
        object.__setattr__(self, "copies", tuple(copies))
        object.__setattr__(self, "assignments", tuple(assignments))

    def fill(self, values: Sequence[Any]) -> list[Any] | None:
        """The values of all placeholders; None if only composing gives the right result."""
        for value, wanted in zip(values, self.accepted, strict=True):
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
        """The config with its placeholders filled. Containers without placeholders are shared, not copied."""
        config = dict(self.base)
        nodes: list[Any] = [config]
        for parent, key in self.copies:
            child = nodes[parent][key].copy()
            nodes[parent][key] = child
            nodes.append(child)
        for node, key, placeholder in self.assignments:
            nodes[node][key] = filled[placeholder]
        return config

    def text(self, trainer: str, omit: Omit, sources: Mapping[Path, str]) -> IdentityText:
        """The identity text of the config, without its `sweep` section. `sources`: see `identity.with_sources`."""
        with_placeholders = self.build([Placeholder(index) for index in range(len(self.paths))])
        with_placeholders.pop("sweep", None)
        return IdentityText(identity_text(trainer, with_sources(with_placeholders, sources), omit))

    def placeholder(self, path: Sequence[str]) -> int | None:
        """The index of the placeholder at a path."""
        wanted = tuple(path)
        return next((i for i, known in enumerate(self.paths) if tuple(map(str, known)) == wanted), None)


def _literal(value: Any) -> bool:
    if isinstance(value, str):
        return "${" not in value and value != "???"
    if isinstance(value, list):
        return all(type(item) in _ATOMS or _literal(item) for item in value)
    return False


def make_template(
    raw: Mapping[Any, Any],
    resolved: Mapping[Any, Any],
    swept: Sequence[Path],
    accepted: Sequence[type | None],
    kept: Collection[Path],
) -> Template | None:
    """A template, or None if filling it might give another config than composing.

    `raw` and `resolved`: the config of one trial, with and without interpolations. `swept`: the paths of the swept
    keys. `accepted`: the type of values that each accepts. `kept`: paths whose values stay as they are written.
    """
    if None in accepted or any(overlap(a, b) for i, a in enumerate(swept) for b in swept[:i]):
        return None
    texts = {path: v for path, v in leaves(raw) if interpolates(v) and path not in kept}
    if any("${" in _NODE.sub("", _ENV.sub("", v)) or "\\" in v for v in texts.values()):
        return None
    names = [_as_name(path) for path in swept]
    order = _dependents(texts, names)
    if order is None or any(overlap(_as_name(path), name) for path in kept for name in names):
        return None
    index = {name: i for i, name in enumerate(names)}
    pieces = []
    for path in order:
        made = _pieces(texts[path], path, index, resolved)
        if made is None:
            return None
        pieces.append(made)
        index[_as_name(path)] = len(index)
    types = tuple(type_ for type_ in accepted if type_ is not None)
    return Template(resolved, (*swept, *order), len(swept), types, tuple(pieces))


def _dependents(texts: Mapping[Path, str], placeholders: Sequence[tuple[str, ...]]) -> list[Path] | None:
    """Interpolations that depend on placeholders, each after those it reads. None: one reads only a part of a value."""
    reads = {path: paths_read(text, path) for path, text in texts.items()}
    waiting = _closure(reads, placeholders)
    exact = set(placeholders)
    order: list[Path] = []
    while waiting:
        ready = [p for p in waiting if not any(overlap(name, _as_name(o)) for name in reads[p] for o in waiting)]
        for path in ready:
            if any(name not in exact and overlap(name, placeholder) for name in reads[path] for placeholder in exact):
                return None
        if not ready:
            return None
        order += ready
        exact |= {_as_name(path) for path in ready}
        waiting = [path for path in waiting if path not in ready]
    return order


def _as_name(path: Path) -> tuple[str, ...]:
    return tuple(map(str, path))


def _closure(reads: Mapping[Path, Sequence[tuple[str, ...]]], placeholders: Sequence[tuple[str, ...]]) -> list[Path]:
    """The interpolations that read a placeholder, directly or through other interpolations."""
    names = set(placeholders)
    found: list[Path] = []
    while True:
        more = [p for p in reads if p not in found and any(overlap(t, name) for t in reads[p] for name in names)]
        if not more:
            return found
        found += more
        names |= {_as_name(path) for path in more}


def _pieces(
    text: str, path: Path, index: Mapping[tuple[str, ...], int], resolved: Mapping[Any, Any]
) -> tuple[Piece, ...] | None:
    """The pieces of an interpolation's text: either one index alone, or pieces that are joined as text."""
    pieces: list[Piece] = []
    end = 0
    for found in _NODE.finditer(text):
        pieces.append(text[end : found.start()])
        name = paths_read(found.group(), path)[0]
        if name in index:
            pieces.append(index[name])
        else:
            constant = _lookup(resolved, name)
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


def _lookup(tree: Any, name: Sequence[str]) -> Any:
    for part in name:
        if not isinstance(tree, Mapping) or part not in tree:
            return _ABSENT
        tree = tree[part]
    return tree


def equal_configs(one: Any, other: Any) -> bool:
    """Whether two configs are equal for a trainer: `1` and `1.0` are not."""
    return canonical(one) == canonical(other)
