"""Composes in a process that has imported the trainer's module: for resolvers, `ConfigStore` schemas, search paths and
variables of the environment.

The user's code registers or sets those when it is imported. What only its functions register stays a reference.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.interpreter import command, import_folders
from orchestrator.language.config_errors import MayNeedCode
from orchestrator.language.source import Request
from orchestrator.language.sweep_plan import PlanSummary, SweepPlan, read
from orchestrator.model import trainer
from orchestrator.model.sweep import TrialSpec

_REGISTERS = re.compile(r"register_new_resolver|register_resolver|ConfigStore|SearchPathPlugin|hydra_zen")
_SETS = re.compile(r"environ\b|putenv|dotenv|rootutils|autoroot")  # variables of the environment
_RESOLVERS = re.compile(r"register_(?:new_)?resolver")
_SKIPPED = {"runs", "outputs", "multirun", "wandb", "node_modules", "site-packages", "__pycache__"}
_MOST_FILES = 5_000  # of the project that are searched
_BATCH = 256  # trials that are sent at once


def plan(request: Request, problem: MayNeedCode) -> SweepPlan:
    """The plan as it is composed in another process. Raises the problem itself where that cannot help."""
    may_help = _SETS if problem.variable else _REGISTERS
    if not problem.certain and not any(may_help.search(text) for text in _sources(request.project)):
        raise problem
    module = _module_of(request)
    if module is None:
        raise problem
    return _Remote(request, module, problem)


class _Remote(SweepPlan):
    """A plan whose configs are composed in another process, which ends with this object."""

    def __init__(self, request: Request, module: str, problem: MayNeedCode) -> None:
        self._connection, theirs = Pipe()
        process = subprocess.Popen(
            command("orchestrator.language.with_code", "main", theirs.fileno()),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._module, self._problem = module, problem
        self._end = weakref.finalize(self, _end, self._connection, process)
        self._connection.send((request, module))
        self.spec, self.file, self.overrides = self._answer(), request.file, request.overrides
        self._note = f"{module} is imported to compose the configs: {problem.what}"

    def _answer(self) -> Any:
        try:
            kind, content = self._connection.recv()
        except EOFError:
            kind, content = "import", "the process ended"
        if kind == "import":
            does = "set" if self._problem.variable else "register"
            failed = f"and {self._module}, which may {does} it, cannot be imported: {content}"
            raise ConfigError(f"{self._problem.what}; {failed}", where=self._problem.where, fix=self._problem.fix)
        if kind == "error":
            what, where, fix = content
            raise ConfigError(what, where=where, fix=fix)
        return content

    def trials(self) -> Iterator[TrialSpec]:
        """The trials, lazily, each once."""
        self._connection.send("trials")
        waiting = True
        try:
            while batch := self._answer():
                yield from batch
                self._connection.send(True)
            waiting = False
        finally:
            if waiting:
                self._stop()

    def _stop(self) -> None:
        """Have the other process give up the trials that it was asked for."""
        try:
            self._connection.send(False)
        except OSError:
            pass

    def summary(self) -> PlanSummary:
        self._connection.send("summary")
        summary: PlanSummary = self._answer()
        return summary.with_warning(self._note)

    def first_trial(self) -> TrialSpec:
        self._connection.send("first_trial")
        trial: TrialSpec = self._answer()
        return trial


def _end(connection: Connection, process: subprocess.Popen[bytes]) -> None:
    connection.close()
    process.wait()


# ---------------------------------------------------------------- what the user's files say


def _sources(project: Path) -> Iterator[str]:
    """The texts of the project's Python files."""
    found = 0
    for folder, below, files in os.walk(project):
        below[:] = [name for name in below if not _is_skipped(folder, name)]
        for name in files:
            if name.endswith(".py") and found < _MOST_FILES:
                found += 1
                yield Path(folder, name).read_text(encoding="utf-8", errors="replace")


def _is_registered(resolver: str, project: Path) -> bool:
    """Whether a file of the project that registers resolvers has this name in quotes."""
    quoted = re.compile(rf"(['\"]){re.escape(resolver)}\1")
    return any(_RESOLVERS.search(text) and quoted.search(text) for text in _sources(project))


def _is_skipped(folder: str, name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED or os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))


def _module_of(request: Request) -> str | None:
    """The trainer's module, read without composing: from the overrides, the file, or the chosen option of `sweep`."""
    words = dict(word.lstrip("+").partition("=")[::2] for word in request.overrides)
    section: Any = _yaml(request.file)
    option = words.get("sweep")
    for default in section.get("defaults") or () if isinstance(section.get("defaults"), list) else ():
        if isinstance(default, dict) and isinstance(default.get("sweep"), str):
            option = option or default["sweep"]
    of_option = _yaml(request.file.parent / "sweep" / f"{option}.yaml") if option else {}
    own = section.get("sweep")
    text = words.get("sweep.trainer") or (own.get("trainer") if isinstance(own, dict) else None)
    text = text or of_option.get("trainer")
    return trainer.parse(text.strip("'\"")).module if isinstance(text, str) and ":" in text else None


def _yaml(file: Path) -> dict[Any, Any]:
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return read if isinstance(read, dict) else {}


# ---------------------------------------------------------------- in the other process


def main() -> int:
    """Import the trainer's module, compose, and answer what is asked, until nobody asks any more."""
    connection = Connection(int(sys.argv[1]))
    request, module = connection.recv()
    for stream in (1, 2):  # what the import prints belongs to no one
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    try:
        _import(module, request.project)
    except BaseException as error:  # SystemExit too
        connection.send(("import", f"{type(error).__name__}: {error}"))
        return 0
    try:
        _Composing(request).answer(connection)
    except (EOFError, OSError):
        pass  # the other side has ended
    return 0


def _import(module: str, project: Path) -> None:
    sys.path[:0] = map(str, import_folders(project))
    sys.argv = [module]
    here = os.getcwd()
    importlib.import_module(module)
    os.chdir(here)


class _Composing:
    """The plan, in the process that has imported the trainer's module."""

    def __init__(self, request: Request) -> None:
        self._request = replace(request, imported=True)
        self._resolvers: set[str] = set()  # those that only functions register

    def _plan(self) -> SweepPlan:
        while True:
            try:
                return read(self._request, frozenset(self._resolvers), self._otherwise)
            except MayNeedCode as problem:
                self._learn(problem)

    def _otherwise(self, problem: MayNeedCode) -> SweepPlan:
        self._learn(problem)
        return self._plan()

    def _learn(self, problem: MayNeedCode) -> None:
        """Leave a resolver to the trainer, if its code has a name for it. Raises the problem otherwise."""
        name = problem.resolver
        if not name or name in self._resolvers or not _is_registered(name, self._request.project):
            raise problem
        self._resolvers.add(name)

    def answer(self, connection: Connection) -> None:
        """Answer until the other side closes the connection."""
        try:
            plan = self._plan()
        except OrchestratorError as error:
            connection.send(("error", (error.what, error.where, error.fix)))
            return
        connection.send(("spec", plan.spec))
        while True:
            asked = connection.recv()
            try:
                if asked == "trials":
                    _send_trials(plan, connection)
                elif isinstance(asked, str):
                    connection.send((asked, getattr(plan, asked)()))
            except OrchestratorError as error:
                connection.send(("error", (error.what, error.where, error.fix)))


def _send_trials(plan: SweepPlan, connection: Connection) -> None:
    trials = plan.trials()
    while batch := list(islice(trials, _BATCH)):
        connection.send(("trials", batch))
        if not connection.recv():
            return
    connection.send(("trials", []))
