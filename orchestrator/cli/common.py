"""What several commands share: parsing, and finding sweeps and trials."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from orchestrator.cli.streams import for_programs
from orchestrator.errors import AmbiguousError, NotFoundError, OrchestratorError
from orchestrator.folder.paths import SweepFolder, all_sweeps, find_folder, runs_root
from orchestrator.manifest.reader import Reader
from orchestrator.model.rows import TrialRow


class Parser(argparse.ArgumentParser):
    """Errors as one message; options and overrides may stand in any order."""

    def __init__(self, command: str, usage: str, text: str) -> None:
        super().__init__(
            prog=f"orchestrate {command}",
            usage=f"orchestrate {command} {usage}",
            description=text,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--runs", metavar="DIR", help="where sweeps are kept (default: $ORCHESTRATE_RUNS or ./runs)")

    def error(self, message: str) -> NoReturn:
        raise OrchestratorError(message, where=self.prog, fix=f"{self.prog} --help")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        return self.parse_intermixed_args(list(words))


def positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


@contextmanager
def gc_paused() -> Iterator[None]:
    """Without the garbage collector: what many rows are parsed to holds no cycles, and the process soon ends."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def find_sweep(options: argparse.Namespace) -> SweepFolder:
    return find_folder(runs_root(options.runs), options.sweep)


def find_trial(runs: str | None, name: str) -> tuple[SweepFolder, TrialRow]:
    """The trial named by `SWEEP/ID`, or by `ID` in the latest sweep that has one."""
    root = runs_root(runs)
    sweep, _, trial = name.rpartition("/")
    found = [find_folder(root, sweep)] if sweep else all_sweeps(root) or [find_folder(root, None)]
    for folder in found:
        try:
            with Reader(folder) as reader:
                return folder, reader.trial(trial)
        except AmbiguousError:
            raise
        except OrchestratorError:  # not in this one, or it cannot be read
            if len(found) == 1:
                raise
    raise NotFoundError(f"no trial begins with {trial!r}", where=str(root), fix="orchestrate trials lists them")


def print_json(value: Any) -> None:
    """One JSON object a line; what is not finite becomes a string, as in the manifest."""
    from orchestrator.model.exact_json import dumps

    for_programs()
    sys.stdout.write(dumps(value) + "\n")


def relative(path: Path) -> str:
    """A path as the user would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
