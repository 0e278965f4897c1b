"""Values that a manifest must not or cannot hold: kept as `${...}`, resolved where the trial starts.

Secrets, `${now:}` and `${hydra:}`; and whatever refers to one of them, for it would carry the value.
Pure: works on an unresolved config, where interpolations stand as text.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.errors import ConfigError

Path = tuple[Any, ...]

_SECRETS = (*("api_key", "secret", "secret_key", "password", "access_key", "access_token", "auth_token", "hf_token"),)
_SECRET = re.compile(rf"(?:.*_)?(?:{'|'.join(_SECRETS)})", re.IGNORECASE)
_ENV = re.compile(r"\$\{\s*oc\.env\s*:\s*['\"]?(\w+)")
_LATE = re.compile(r"\$\{\s*(?:now|hydra)\s*:")
_NODE = re.compile(r"\$\{\s*(\.*)([^{}:$]*?)\s*\}")
_SELECT = re.compile(r"\$\{\s*oc\.(?:select|deprecated|dict\.keys|dict\.values)\s*:\s*['\"]?(\.*)([^{}:,'\"]*)")


def dotted(path: Path) -> str:
    """A path as a key of the config."""
    return ".".join(map(str, path))


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is no container, with its path."""
    if isinstance(tree, Mapping):
        for key, child in tree.items():
            yield from leaves(child, (*path, key))
    elif isinstance(tree, list):
        for index, child in enumerate(tree):
            yield from leaves(child, (*path, index))
    else:
        yield path, tree


def interpolates(value: Any) -> bool:
    """Whether a value is text with an interpolation."""
    return isinstance(value, str) and "${" in value


def is_secret_name(name: str) -> bool:
    """Whether a key's last part, or a variable's name, speaks of a secret."""
    return bool(_SECRET.fullmatch(name))


def targets(text: str, path: Path) -> list[tuple[str, ...]]:
    """Paths of the config that an interpolation reads, as far as its text tells."""
    found = []
    for dots, name in [*_NODE.findall(text), *_SELECT.findall(text)]:
        parts = tuple(part for part in re.split(r"[.\[\]]+", name) if part)
        base = tuple(map(str, path[: len(path) - len(dots)])) if dots else ()
        found.append(base + parts)
    return found


def touch(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one path leads to or through the other."""
    short = min(len(one), len(other))
    return one[:short] == other[:short]


def _is_secret(path: Path, globs: Sequence[str]) -> bool:
    names = [part for part in path if isinstance(part, str)]
    if names and is_secret_name(names[-1]):
        return True
    key = dotted(path)
    return any(fnmatch.fnmatchcase(key, glob) for glob in globs)


def _own(path: Path, value: Any, globs: Sequence[str], where: str) -> bool:
    """Whether a value is a reference for its own sake."""
    late = interpolates(value) and bool(_LATE.search(value))
    late = late or (interpolates(value) and any(map(is_secret_name, _ENV.findall(value))))
    if late or not _is_secret(path, globs):
        return late
    if interpolates(value):
        return True
    if value in (None, "", "???") or isinstance(value, bool):
        return False
    raise ConfigError(
        f"a secret stands in clear at {dotted(path)!r}; it would be written to the manifest",
        where=where,
        fix=f"write ${{oc.env:{str(path[-1]).upper()}}}, and set the variable where trials run",
    )


def _check_addressable(found: Mapping[Path, str], where: str) -> None:
    for path in found:
        if any("." in str(part) for part in path):
            raise ConfigError(
                f"{dotted(path)!r} is kept as {found[path]}, and a key on its way holds a dot",
                where=where,
                fix="rename it",
            )


def find(tree: Any, globs: Sequence[str], where: str) -> dict[Path, str]:
    """The references of an unresolved config: path -> expression."""
    written = [(path, value) for path, value in leaves(tree) if value is not None]
    found = {path: value for path, value in written if _own(path, value, globs, where)}
    reads = {path: targets(value, path) for path, value in written if interpolates(value)}
    while True:
        known = [tuple(map(str, path)) for path in found]
        more = {
            path: dict(written)[path]
            for path, paths in reads.items()
            if path not in found and any(touch(target, name) for target in paths for name in known)
        }
        if not more:
            _check_addressable(found, where)
            return found
        found |= more
