"""Finds the references of a config: values that are stored as `${...}` and resolved only when the trial starts.

These are secrets, `${now:}`, `${hydra:}`, and every value that refers to one of them, since it would contain it. They
are no part of a trial's id. Values that only the trainer's code can give are references as well: `???`, resolvers that
its functions register, and what refers to them. Their text is part of the id.
Pure: works on an unresolved config, in which interpolations are text.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.language.identity import Omit

Path = tuple[Any, ...]
MISSING = "???"  # a mandatory value that is not given

_SECRET_NAMES = "api_key|secret|secret_key|password|access_key|access_token|auth_token|hf_token"
_SECRET = re.compile(rf"(?:.*_)?(?:{_SECRET_NAMES})", re.IGNORECASE)
_ENV = re.compile(r"\$\{\s*oc\.env\s*:\s*['\"]?(\w+)")
_RESOLVED_AT_START = re.compile(r"\$\{\s*(?:now|hydra)\s*:")
_NODE = re.compile(r"\$\{\s*(\.*)([^{}:$]*?)\s*\}")
_RESOLVER = re.compile(r"\$\{\s*([A-Za-z_][\w.]*)\s*:")
_SELECT = re.compile(r"\$\{\s*oc\.(?:select|deprecated|dict\.keys|dict\.values)\s*:\s*['\"]?(\.*)([^{}:,'\"]*)")


def dotted(path: Path) -> str:
    """A path as a dotted key."""
    return ".".join(map(str, path))


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is not a container, with its path."""
    if isinstance(tree, Mapping):
        for key, child in tree.items():
            yield from leaves(child, (*path, key))
    elif isinstance(tree, list):
        for index, child in enumerate(tree):
            yield from leaves(child, (*path, index))
    else:
        yield path, tree


def interpolates(value: Any) -> bool:
    """Whether a value is text that contains an interpolation."""
    return isinstance(value, str) and "${" in value


def is_secret_name(name: str) -> bool:
    """Whether a name, of a key or of an environment variable, suggests that the value is secret."""
    return bool(_SECRET.fullmatch(name))


def is_private(key: str, text: str, secrets: Sequence[str]) -> bool:
    """Whether a reference itself is a secret, rather than refers to one."""
    return _is_secret(tuple(key.split(".")), secrets) or any(map(is_secret_name, _ENV.findall(text)))


def paths_read(text: str, path: Path) -> list[tuple[str, ...]]:
    """The paths that an interpolation reads, as far as its text shows them."""
    found = []
    for dots, name in [*_NODE.findall(text), *_SELECT.findall(text)]:
        parts = tuple(part for part in re.split(r"[.\[\]]+", name) if part)
        base = tuple(map(str, path[: len(path) - len(dots)])) if dots else ()
        found.append(base + parts)
    return found


def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether the paths are equal, or one contains the other."""
    short = min(len(one), len(other))
    return one[:short] == other[:short]


def _is_secret(path: Path, globs: Sequence[str]) -> bool:
    names = [part for part in path if isinstance(part, str)]
    if names and is_secret_name(names[-1]):
        return True
    key = dotted(path)
    return any(fnmatch.fnmatchcase(key, glob) for glob in globs)


def _is_reference(path: Path, value: Any, globs: Sequence[str], where: str) -> bool:
    """Whether a value itself is a reference. Raises ConfigError for a secret that is written as plain text."""
    late = interpolates(value) and bool(_RESOLVED_AT_START.search(value))
    late = late or (interpolates(value) and any(map(is_secret_name, _ENV.findall(value))))
    if late or not _is_secret(path, globs):
        return late
    if interpolates(value):
        return True
    if value in (None, "", "???") or isinstance(value, bool):
        return False
    raise ConfigError(
        f"{dotted(path)!r} is a secret in plain text, which would be written to the manifest",
        where=where,
        fix=f"write ${{oc.env:{str(path[-1]).upper()}}} and set the variable where trials run",
    )


def _check_addressable(found: Mapping[Path, str], where: str) -> None:
    for path in found:
        if any("." in str(part) for part in path):
            raise ConfigError(
                f"{dotted(path)!r} is kept as {found[path]}, but one of its keys contains a dot",
                where=where,
                fix="rename the key",
            )


@dataclass(frozen=True)
class References:
    """The references of an unresolved config: path -> expression."""

    kept: Mapping[Path, str]
    late: frozenset[Path] = frozenset()  # those of them that only the trainer's code can give

    def texts(self, late: bool = True) -> dict[str, str]:
        """Dotted key -> expression; what is `???` is no expression."""
        kept = self.kept.items()
        return {dotted(p): text for p, text in kept if text != MISSING and (late or p not in self.late)}


@dataclass(frozen=True)
class Rules:
    """Which values of a config are references, beside those that always are."""

    secrets: Sequence[str] = ()  # glob patterns over dotted keys
    missing: Omit = field(default=lambda key: False)  # whether a dotted key may be `???`
    resolvers: Collection[str] = ()  # names of resolvers that only the trainer's functions register
    variables: Collection[str] = ()  # of the environment, which the trial sets to what its config says

    def late(self, path: Path, value: Any) -> bool:
        if value == MISSING:
            return self.missing(dotted(path))
        if self.variables and interpolates(value) and any(name in self.variables for name in _ENV.findall(value)):
            return True
        return bool(self.resolvers) and any(name in self.resolvers for name in resolvers_of(value))


def resolvers_of(value: Any) -> list[str]:
    """The names of the resolvers that a value uses."""
    return _RESOLVER.findall(value) if interpolates(value) else []


def find_references(tree: Any, rules: Rules, where: str) -> References:
    """The references of an unresolved config."""
    written = {path: value for path, value in leaves(tree) if value is not None}
    reads = {path: paths_read(value, path) for path, value in written.items() if interpolates(value)}
    found = {path for path, value in written.items() if _is_reference(path, value, rules.secrets, where)}
    first = {path for path, value in written.items() if path not in found and rules.late(path, value)}
    early = _with_readers(found, reads)
    late = _with_readers(first, reads) - early
    kept = {path: written[path] for path in written if path in early or path in late}
    _check_addressable(kept, where)
    return References(kept, frozenset(late))


def _with_readers(found: set[Path], reads: Mapping[Path, Sequence[tuple[str, ...]]]) -> set[Path]:
    """These paths, and those whose values read one of them, directly or through others."""
    found = set(found)
    while found:
        known = [tuple(map(str, path)) for path in found]
        more = {p for p in reads if p not in found and any(overlap(r, name) for r in reads[p] for name in known)}
        if not more:
            break
        found |= more
    return found


def find_sources(tree: Any, ignored: Callable[[str], bool], kept: Collection[Path]) -> dict[Path, str]:
    """The values of an unresolved config that come from ignored keys: path -> text, such as `${paths.data}/train`.

    Only plain `${a.b}` in it: what another resolver gives would be lost. What else it reads counts by itself.
    """
    plain = {
        path: value
        for path, value in leaves(tree)
        if interpolates(value) and path not in kept and "${" not in _NODE.sub("", value) and "\\" not in value
    }
    reads = {path: paths_read(value, path) for path, value in plain.items()}
    names = [tuple(map(str, path)) for path in _containers_and_leaves(tree) if ignored(dotted(path))]
    found: dict[Path, str] = {}
    while True:
        more = {
            path: plain[path]
            for path, paths in reads.items()
            if path not in found and any(_within_ignored(read, ignored) or _any_overlap(read, names) for read in paths)
        }
        if not more:
            return found
        found |= more
        names += [tuple(map(str, path)) for path in more]


def _within_ignored(read: tuple[str, ...], ignored: Callable[[str], bool]) -> bool:
    return any(ignored(".".join(read[:end])) for end in range(1, len(read) + 1))


def _any_overlap(read: tuple[str, ...], names: Sequence[tuple[str, ...]]) -> bool:
    return any(overlap(read, name) for name in names)


def _containers_and_leaves(tree: Any, path: Path = ()) -> Iterator[Path]:
    children = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from _containers_and_leaves(child, (*path, key))
