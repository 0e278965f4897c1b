"""Turns errors of YAML, OmegaConf and Hydra into one ConfigError: what is wrong, where, and what to do."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orchestrator.errors import ConfigError, OrchestratorError, nearest


class MayNeedCode(ConfigError):
    """A config names something that is not known here, but that the user's code may register when it is imported."""

    certain = False  # whether nothing else can help
    resolver = ""  # the name of the resolver that is not known


@contextmanager
def as_config_error(where: str) -> Iterator[None]:
    """Turn any exception in the block into a ConfigError: bad input raises many types in Hydra and OmegaConf."""
    try:
        yield
    except OrchestratorError:
        raise
    except Exception as error:
        raise config_error(error, where) from error


def config_error(error: Exception, where: str) -> ConfigError:
    """A ConfigError that explains an exception of YAML, OmegaConf or Hydra."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:  # set by YAML parsers
        problem = getattr(error, "problem", None) or "it cannot be read"
        name = mark.name if "/" in str(mark.name) else where
        return ConfigError(
            f"not valid YAML: {problem}", where=f"{name}:{mark.line + 1}", fix=f"look at column {mark.column + 1}"
        )
    kind = _may_need_code(error)
    found = (MayNeedCode if kind else ConfigError)(_message(error), where=where or None, fix=_fix(error))
    if isinstance(found, MayNeedCode) and (resolver := re.search(r"Unsupported interpolation type (\S+)", str(kind))):
        found.certain, found.resolver = True, resolver[1]
    return found


def _may_need_code(error: BaseException | None) -> BaseException | None:
    """The exception of Hydra or OmegaConf, among an exception's causes, that the user's code may mend."""
    while error is not None:
        if type(error).__name__ in ("UnsupportedInterpolationType", "MissingConfigException"):
            return error
        if str(error).lstrip().startswith(("Could not override", "In '")) and "Could not override" in str(error):
            return error
        error = error.__cause__ or error.__context__
    return None


def _message(error: Exception) -> str:
    """The useful lines of an error's message, joined into one, without search paths and types."""
    text, seen = str(error), error
    while seen.__cause__ is not None and isinstance(seen.__cause__, Exception):
        seen = seen.__cause__
        text = f"{text}\n{seen}" if str(seen) not in text else text
    skipped = ("object_type=", "reference_type=", "See https", "Config search path", "Search path", "provider=")
    lines = [line.strip() for line in text.splitlines()]
    stop = next((i for i, line in enumerate(lines) if line.startswith(("Config search", "Search path"))), len(lines))
    rest = [line for line in lines[:stop] + lines[stop + 1 :] if line and not line.startswith(skipped)]
    options = getattr(error, "options", None) or ()
    rest = [line for line in rest if line not in options]
    rest = [line for line in rest if not line.startswith(("To append", "Available options", "Key '"))]
    unknown = re.search(r"^Key '(.+)' not in '(\w+)'\s+full_key: (\S+)", text, re.MULTILINE)
    if unknown:
        return f"{unknown[3]!r} is no key of {unknown[2]}"
    if isinstance(error, RecursionError):
        return "it refers to itself or is nested too deeply"
    return "; ".join(dict.fromkeys(rest)).replace("full_key: ", "at key ") or type(error).__name__


def suggest_key(key: str, known: Sequence[str]) -> str | None:
    """A suggestion for a misspelt dotted key. If its parent exists, only keys of that parent are suggested."""
    parent, _, last = key.rpartition(".")
    siblings = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == parent]
    if parent and siblings:
        close = nearest(last, siblings)
        return f"did you mean {f'{parent}.{close}'!r}?" if close else f"keys of {parent}: {', '.join(siblings)}"
    close = nearest(key, known)
    return f"did you mean {close!r}?" if close else None


def join_hints(*parts: str | None) -> str:
    """Several suggestions in one line."""
    return "; ".join(filter(None, parts)).replace("?; ", "? ")


def _fields(error: BaseException | None) -> list[str]:
    """The fields of the structured config that an error is about."""
    while error is not None:
        kind = getattr(error, "object_type", None)
        if dataclasses.is_dataclass(kind):
            return [field.name for field in dataclasses.fields(kind)]
        error = error.__cause__ or error.__context__
    return []


def _fix(error: Exception) -> str | None:
    unknown = re.search(r"Key '(.+)' not in '(?:\w+)'", str(error))
    if unknown and (fields := _fields(error)):
        close = nearest(unknown[1], fields)
        return f"did you mean {close!r}?" if close else f"its keys: {', '.join(fields)}"
    options = getattr(error, "options", None)
    missing = getattr(error, "missing_cfg_file", None)
    if options and missing:
        close = nearest(str(missing).rpartition("/")[2], options)
        guess = f"did you mean {close!r}? " if close else ""
        return f"{guess}options: {', '.join(options)}"
    found = re.search(r"To append to your (?:config|default list) use (\S+)", str(error))
    return f"to add it, write {found.group(1)}" if found else None
