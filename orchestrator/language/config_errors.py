"""Turns errors of YAML, OmegaConf and Hydra into one ConfigError: what is wrong, where, and what to do."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orchestrator.errors import ConfigError, OrchestratorError, nearest

_TWICE = re.compile(r"Multiple values for (\S+?)\. To override a value use 'override (.+?): (.+?)'")
_UNSET = re.compile(r"(?:.* raised while .*\")?Environment variable '(.+)' not found\"?")


class MayNeedCode(ConfigError):
    """A config names something that is not known here, but that the user's code may register when it is imported."""

    certain = False  # whether nothing else can help
    resolver = ""  # the name of the resolver that is not known
    variable = ""  # the name of the variable of the environment that is not set


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
    if told := _grammar(error):
        return ConfigError(told[0], where=where or None, fix=told[1])
    kind = _may_need_code(error)
    found = (MayNeedCode if kind else ConfigError)(_message(error), where=where or None, fix=_fix(error))
    if isinstance(found, MayNeedCode) and (resolver := re.search(r"Unsupported interpolation type (\S+)", str(kind))):
        found.certain, found.resolver = True, resolver[1]
    if isinstance(found, MayNeedCode) and (unset := _UNSET.search(str(kind))):
        found.variable = unset[1]
    return found


def _may_need_code(error: BaseException | None) -> BaseException | None:
    """The exception of Hydra or OmegaConf, among an exception's causes, that the user's code may mend."""
    for each in _origins(error):
        if type(each).__name__ in ("UnsupportedInterpolationType", "MissingConfigException"):
            return each
        if _UNSET.search(str(each)):
            return each
        if str(each).lstrip().startswith(("Could not override", "In '")) and "Could not override" in str(each):
            return each
    return None


_LITERALLY = """to give a text as it is, quote it twice: 'key="text"'"""
_LEXER = "LexerNoViableAltException: "  # the beginning of a message of Hydra, below which a caret shows the place


def _grammar(error: Exception) -> tuple[str, str] | None:
    """What is wrong with a text that is not in Hydra's grammar, and what to do; None if it is no such error."""
    chain = list(_chain(error))
    text = "\n".join(map(str, chain))
    if lexer := next((each for each in chain if type(each).__name__ == "LexerNoViableAltException"), None):
        return _unreadable(str(lexer.input), lexer.startIndex), _LITERALLY  # type: ignore[attr-defined]
    if found := re.search(rf"{_LEXER}(.*)\n( *)\^", text):
        return _unreadable(found.group(1), len(found.group(2)) - len(_LEXER)), _LITERALLY
    if "missing EQUAL at" in text:
        return "it has no `=`", "write KEY=VALUE; quote a value that has spaces"
    if found := re.search(r"no viable alternative at input '(.*)'", text, re.DOTALL):
        seen = found.group(1).removesuffix("<EOF>")
        return f"it ends too early, or has a mark too many, at {seen!r}", _LITERALLY
    if found := re.search(r"(?:mismatched|extraneous) input '(.*)' expecting|recognition error at: '(.*)'", text):
        mark = found.group(1) or found.group(2) or ""
        return "it ends too early" if mark == "<EOF>" else f"{mark!r} does not belong there", _LITERALLY
    if found := re.search(r"\w+ while evaluating '(.*)': (.*)", text):
        known = re.search(r"Available:(.*)", text)
        return f"{found.group(1)}: {found.group(2)}", f"functions: {known.group(1)}" if known else _LITERALLY
    return None


def _unreadable(written: str, position: int) -> str:
    rest = written[max(0, position) :]
    if rest[:1] in ("'", '"'):
        return f"a quotation mark is not closed: {rest}"
    return f"it cannot be read from {rest!r} on" if rest else "it ends too early"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and its causes."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _origins(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and those that led to it, also where it does not name them as its cause."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _message(error: Exception) -> str:
    """The useful lines of an error's message, joined into one, without search paths and types."""
    if isinstance(error, RecursionError):
        return "it refers to itself or is nested too deeply"
    text = ""
    for each in _chain(error):
        text = f"{text}\n{each}" if isinstance(each, Exception) and str(each) not in text else text
    text = _UNSET.sub(r"the environment variable '\1' is not set", text)
    if resolver := re.search(r"Unsupported interpolation type (\S+)", text):
        return f"the resolver {resolver.group(1)!r} is not known"
    if missing := re.search(r"(?:In '(.*)': )?Could not (?:find|load) '(.*)'", text):
        by = f" (asked for by {missing.group(1)!r} or an override)" if missing.group(1) else ""
        return f"there is no config {missing.group(2)!r}{by}"
    if twice := _TWICE.search(text):
        return f"{twice[1]!r} has an option already"
    if there := re.search(r"An item is already at '(.*)'", text):
        return f"the config has {there.group(1)!r} already"
    skipped = ("object_type=", "reference_type=", "See https", "Config search path", "Search path", "provider=")
    lines = [line.strip() for line in text.splitlines()]
    stop = next((i for i, line in enumerate(lines) if line.startswith(("Config search", "Search path"))), len(lines))
    rest = [line for line in lines[:stop] + lines[stop + 1 :] if line and not line.startswith(skipped)]
    options = getattr(error, "options", None) or ()
    rest = [line.removesuffix(".") for line in rest if line not in (*options, "None")]
    rest = [line for line in rest if not line.startswith(("To append", "Available options", "Key '"))]
    unknown = re.search(r"^Key '(.+)' not in '(\w+)'\s+full_key: (\S+)", text, re.MULTILINE)
    if unknown:
        return f"{unknown[3]!r} is no key of {unknown[2]}"
    return "; ".join(dict.fromkeys(rest)).replace("full_key: ", "at key ") or type(error).__name__


def suggest_key(key: str, known: Sequence[str]) -> str | None:
    """A suggestion for a misspelt dotted key. If its parent exists, only keys of that parent are suggested."""
    if key in known:  # among dotted keys, but not in the config
        first, _, rest = key.partition(".")
        if number := next((part for part in key.split(".") if part.isdigit()), None):
            return f"the key {number} is a number in the file: quote it there"
        return f"the file has one key with dots in its name: write {first}: {{{rest}: …}} there"
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
    for each in _origins(error):
        kind = getattr(each, "object_type", None)
        if dataclasses.is_dataclass(kind):
            return [field.name for field in dataclasses.fields(kind)]
    return []


def _fix(error: Exception) -> str | None:
    unknown = re.search(r"Key '(.+)' not in '(?:\w+)'", str(error))
    if unknown and (fields := _fields(error)):
        close = nearest(unknown[1], fields)
        return f"did you mean {close!r}?" if close else f"its keys: {', '.join(fields)}"
    options = getattr(error, "options", None)
    missing = getattr(error, "missing_cfg_file", None)
    if missing:
        close = nearest(str(missing).rpartition("/")[2], options or ())
        guess = f"did you mean {close!r}? " if close else ""
        return f"{guess}options: {', '.join(options)}" if options else f"the file would be {missing}.yaml"
    if twice := _TWICE.search(str(error)):
        return f"write {twice[2]}={twice[3]}; in a defaults list, override {twice[2]}: {twice[3]}"
    if unset := _UNSET.search(str(error)):
        return f"set it in your shell, or give a default: ${{oc.env:{unset[1]},DEFAULT}}"
    if there := re.search(r"already at '.*'.*remove \+ prefix: '(.*?)'", str(error), re.DOTALL):
        return f"write {there.group(1)}, or ++{there.group(1)}"
    found = re.search(r"To append to your (?:config|default list) use (\S+)", str(error))
    return f"to add it, write {found.group(1)}" if found else None
