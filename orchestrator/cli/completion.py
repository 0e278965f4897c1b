"""Completion of a command line by the shell, with argcomplete; used only while a shell asks for it.

The shell calls `orchestrate` with the line in its environment. Nothing is imported for it that reads a config.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import argcomplete
from argcomplete.completers import BaseCompleter, DirectoriesCompleter, FilesCompleter, SuppressCompleter

from orchestrator.errors import OrchestratorError
from orchestrator.folder.paths import SweepFolder, all_sweeps, find_folder, runs_root
from orchestrator.manifest.query import ALL
from orchestrator.manifest.reader import Reader
from orchestrator.model.exact_json import configs
from orchestrator.model.sweep import State
from orchestrator.naming import NAMED

MOST = 200  # trials that are offered


def command_in(line: str, point: int, commands: Iterable[str]) -> str | None:
    """The command that the line has before the word that is completed, if it has one."""
    words = line[:point].split()
    done = words if line[:point].endswith(" ") else words[:-1]
    return done[1] if len(done) > 1 and done[1] in commands else None


def complete_commands(commands: Sequence[str]) -> None:
    """Answer the shell with the commands, and exit."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--version", action="store_true")
    parser.add_argument("command", choices=[*commands, "help"])
    argcomplete.autocomplete(parser)


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell with what may follow in a line of this command, and exit."""
    os.environ["_ARGCOMPLETE"] = str(int(os.environ["_ARGCOMPLETE"]) + 1)  # the command is no argument of its parser
    for action in parser._actions:
        if action.dest not in ("help",) and not action.choices and action.nargs != 0:
            action.completer = COMPLETERS.get(action.dest, SuppressCompleter())  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


class _Known(BaseCompleter):
    """Offers what sweeps, as far as they can be read, are known to have."""

    def __init__(self, offered: Any) -> None:
        self._offered = offered

    def __call__(self, *, prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
        try:
            return [text for text in self._offered(prefix, parsed_args) if text.startswith(prefix)]
        except OrchestratorError:
            return []


def _sweeps(prefix: str, given: argparse.Namespace) -> Iterator[str]:
    yield from (folder.name for folder in all_sweeps(runs_root(given.runs)))
    if hasattr(given, "cause"):  # of `resubmit`, which takes a trial's name there too
        yield from NAMED


def _trials(prefix: str, given: argparse.Namespace) -> Iterator[str]:
    sweep, slash, begun = prefix.rpartition("/")
    root = runs_root(given.runs)
    folder = find_folder(root, sweep or getattr(given, "sweep", None))
    with Reader(folder) as reader:
        yield from (f"{sweep}{slash}{name}" for name in (*NAMED, *(found[:8] for found in reader.ids(begun, MOST))))
    if not slash:
        yield from (f"{other.name}/" for other in all_sweeps(root))


def _of_sweep(given: argparse.Namespace) -> SweepFolder:
    return find_folder(runs_root(given.runs), getattr(given, "sweep", None))


def _settings(reader: Reader) -> dict[str, list[Any]]:
    """The settings that vary, each with its values."""
    found: dict[str, dict[str, None]] = {}
    for settings in configs([text for (text,) in reader.listed("overrides", ALL)]):
        for key, value in settings.items():
            found.setdefault(key, {})[str(value)] = None
    return {key: list(values) for key, values in found.items()}


def _metrics(prefix: str, given: argparse.Namespace) -> list[str]:
    with Reader(_of_sweep(given)) as reader:
        return sorted(reader.metric_names())


def _columns(prefix: str, given: argparse.Namespace) -> list[str]:
    before = prefix[: prefix.rfind(",") + 1]
    with Reader(_of_sweep(given)) as reader:
        known = ["trial_id", "state", *_settings(reader), *sorted(reader.metric_names()), "seconds", "message"]
    return [f"{before}{name}" for name in known]


def _where(prefix: str, given: argparse.Namespace) -> list[str]:
    key, sign, _ = prefix.partition("=")
    with Reader(_of_sweep(given)) as reader:
        settings = _settings(reader)
    return [f"{key}={value}" for value in settings.get(key, ())] if sign else [f"{name}=" for name in settings]


def _causes(prefix: str, given: argparse.Namespace) -> list[str]:
    with Reader(_of_sweep(given)) as reader:
        return sorted({name for row in reader.failed() for name in (row.cause, row.place) if name})


def _states(prefix: str, given: argparse.Namespace) -> list[str]:
    return list(dict.fromkeys(state.word for state in State))


def _overrides(prefix: str, given: argparse.Namespace) -> Iterator[str]:
    """Groups beside the sweep file, and their options: found as folders and files, without composing anything."""
    root = given.config_dir or Path(given.file or "conf/sweep.yaml").parent
    group, sign, values = prefix.partition("=")
    if sign:
        before = values[: values.rfind(",") + 1]
        yield from (f"{group}={before}{path.stem}" for path in sorted((root / group).glob("*.yaml")))
    else:
        folders = (path for path in sorted(root.rglob("*")) if path.is_dir() and any(path.glob("*.yaml")))
        yield from (f"{path.relative_to(root).as_posix()}=" for path in folders)


COMPLETERS: dict[str, BaseCompleter] = {  # by what the argument is called
    "file": FilesCompleter(["yaml"]),
    "overrides": _Known(_overrides),
    "config_dir": DirectoriesCompleter(),
    "runs": DirectoriesCompleter(),
    "sweep": _Known(_sweeps),
    "trial": _Known(_trials),
    "sort": _Known(_metrics),
    "columns": _Known(_columns),
    "where": _Known(_where),
    "cause": _Known(_causes),
    "state": _Known(_states),
}
