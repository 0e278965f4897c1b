"""What several commands share: parsing, and finding sweeps and trials."""

from __future__ import annotations

import argparse
import gc
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from orchestrator import naming
from orchestrator.cli.streams import for_programs
from orchestrator.errors import AmbiguousError, ConfigError, NotFoundError, OrchestratorError
from orchestrator.folder.paths import SweepFolder, all_sweeps, find_folder, runs_root
from orchestrator.manifest.reader import Reader
from orchestrator.model.rows import PlanRow, TrialRow
from orchestrator.results.best import winner

COMPLETING = "_ARGCOMPLETE"  # set by the shell while it completes a line


class Parser(argparse.ArgumentParser):
    """Errors as one message; options and overrides may stand in any order."""

    def __init__(self, command: str, usage: str, text: str, examples: Sequence[str] = ()) -> None:
        """`examples`: command lines without the word `orchestrate`."""
        super().__init__(
            prog=f"orchestrate {command}",
            usage=f"orchestrate {command} {usage}",
            description=text,
            epilog="\n".join(["examples:", *(f"  orchestrate {line}" for line in examples)]) if examples else None,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("--runs", metavar="DIR", help="where sweeps are kept (default: $ORCHESTRATE_RUNS or ./runs)")

    def error(self, message: str) -> NoReturn:
        raise OrchestratorError(message, where=self.prog, fix=f"{self.prog} --help")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """The options. While the shell completes a line, it is answered here, and the process ends."""
        if COMPLETING in os.environ:
            from orchestrator.cli.completion import complete

            complete(self)
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


TRIAL_HELP = "the first digits of its id, `best`, `last` (started last), or SWEEP/TRIAL"


def trial_in(reader: Reader, name: str) -> TrialRow:
    """The trial of this sweep that a word names: the first digits of its id, `best` or `last`. Raises NotFoundError.

    `best` is the best repeat of the best config; `last` the one that started last.
    """
    if name == "last":
        found = reader.last_started()
        if found is None:
            raise NotFoundError("no trial has started yet", where=reader.folder.name, fix="orchestrate sweep runs them")
        return reader.exactly(found)
    if name != "best":
        return reader.trial(name)
    plan = reader.plan()
    objective = plan.spec.objective if plan else None
    if objective is None:
        fix = "name its metric in sweep.objective and run the sweep again: what is done stays done"
        raise NotFoundError("the sweep has no objective, so no trial is its best", where=reader.folder.name, fix=fix)
    best = winner(reader, plan)
    if best is None:
        fix = f"orchestrate trials {reader.folder.argument} shows what was reported"
        raise NotFoundError(
            f"no trial with {objective.metric!r} can be the best yet", where=reader.folder.name, fix=fix
        )
    return best.trial


def find_trial(runs: str | None, name: str) -> tuple[SweepFolder, TrialRow]:
    """The trial named by `SWEEP/ID`, or by `ID` where one sweep has it; `best`, `last`: of the latest sweep.

    Raises NotFoundError, AmbiguousError.
    """
    root = runs_root(runs)
    sweep, _, trial = name.rpartition("/")
    folders = [find_folder(root, sweep)] if sweep else all_sweeps(root) or [find_folder(root, None)]
    if trial in naming.NAMED:
        del folders[1:]
    found = [each for folder in folders if (each := _trial_of(folder, trial, only=len(folders) == 1))]
    if not found:
        raise NotFoundError(f"no trial begins with {trial!r}", where=str(root), fix="orchestrate trials lists them")
    if len(found) > 1:
        where = ", ".join(folder.argument for folder, _ in found)
        fix = f"name the sweep too: {found[0][0].argument}/{trial}"
        raise AmbiguousError(f"trials of several sweeps begin with {trial!r}: of {where}", where=str(root), fix=fix)
    return found[0]


def sweep_of_trials(runs: str | None, names: Sequence[str], where: str, fix: str) -> SweepFolder:
    """The sweep that has all these trials. Raises NotFoundError, AmbiguousError, ConfigError."""
    found = {folder.path: folder for folder, _ in (find_trial(runs, name) for name in names)}
    if len(found) > 1:
        raise ConfigError(f"the trials are of {len(found)} sweeps", where=where, fix=fix)
    return next(iter(found.values()))


def _trial_of(folder: SweepFolder, trial: str, only: bool) -> tuple[SweepFolder, TrialRow] | None:
    """The trial, or None if this sweep does not have it, or cannot be read and is not the only one."""
    try:
        with Reader(folder) as reader:
            return folder, trial_in(reader, trial)
    except AmbiguousError:
        raise
    except OrchestratorError:
        if only:
            raise
        return None


def print_json(value: Any) -> None:
    """One JSON object a line; what is not finite becomes a string, as in the manifest."""
    from orchestrator.model.exact_json import dumps

    for_programs()
    sys.stdout.write(dumps(value) + "\n")


def sweep_command(plan: PlanRow, folder: SweepFolder, *options: str) -> str:
    """The command that goes on with a sweep, as it can be typed here."""
    words = ["orchestrate", "sweep", plan.file, *plan.argv, *plan.provenance.get("options", ())]
    if folder.name != plan.spec.name:  # it was renamed
        words.append(f"sweep.name={folder.name}")
    here, runs = plan.cwd or str(Path.cwd()), folder.path.parent
    if Path(plan.file).exists() and not Path(here, plan.file).exists():
        here = str(Path.cwd())  # the project was moved, or is on another machine
    if runs != Path(here, os.environ.get("ORCHESTRATE_RUNS") or "runs"):
        words += ["--runs", str(runs.relative_to(here) if runs.is_relative_to(here) else runs)]
    text = shlex.join([*words, *options])
    return text if here == str(Path.cwd()) else f"cd {shlex.quote(here)} && {text}"


def relative(path: Path) -> str:
    """A path as the user would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
