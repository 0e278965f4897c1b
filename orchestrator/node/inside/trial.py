"""Inside the trial: prepare the process, call the trainer, and tell how that went.

What follows from the order alone is done before the fork, by `prepare`: there it costs less than half (see `warm`).
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import TrainerError
from orchestrator.model.events import Ended, Failure
from orchestrator.model.order import Order
from orchestrator.node.inside import config, failure, seeding, stack
from orchestrator.node.inside.journal import JournalWriter
from orchestrator.node.inside.run import Run
from orchestrator.node.programs.table import look_up
from orchestrator.node.shared import trial_paths
from orchestrator.node.shared.zygote_spec import trial_environment

TERMINATED = 128 + signal.SIGTERM  # exit code of a trial that was asked to end and did

_configs = config.Configs()
_begun = False


@dataclass(frozen=True)
class Ready:
    """A trial that only lacks its process."""

    order: Order
    paths: trial_paths.TrialPaths
    writer: JournalWriter
    function: Callable[..., Any]
    arguments: tuple[Any, ...]  # a DictConfig, and `run` if the function takes it
    run: Run
    setup: seeding.Setup
    error: BaseException | None = None  # what the trial is to fail with


def import_from(folders: Sequence[str]) -> None:
    """Look there before anywhere else."""
    sys.path[:] = [*folders, *(path for path in sys.path if path not in folders)]


def prepare(
    order: Order,
    gpus: Sequence[str] | None,
    paths: trial_paths.TrialPaths,
    writer: JournalWriter,
    error: BaseException | None = None,
) -> Ready:
    """Whatever needs no process of its own. `error` is what importing the trainer's module raised."""
    run = Run(order, writer, paths)
    setup = seeding.Setup(order.seed, order.threads, order.deterministic)
    try:
        if isinstance(error, SystemExit):
            raise TrainerError("the trainer's module exits when it is imported", where=str(order.trainer)) from error
        if error is not None:
            raise error
        for name, value in trial_environment(order.threads, gpus).items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        function, with_run = look_up(order.trainer)  # it may import: nothing is seeded before
        setup.settle()
        seeding.name_operations(writer.notice)
        config.imitate_hydra(order, paths)
        settings = _configs.of(order.config)
        return Ready(order, paths, writer, function, (settings, run) if with_run else (settings,), run, setup)
    except BaseException as raised:
        return Ready(order, paths, writer, prepare, (), run, setup, raised)


def listen(stacks: int) -> None:
    """Be ready for signals: to end, and to write into the file `stacks` what the threads do."""
    stack.answer_to_signal(stacks)
    signal.signal(signal.SIGTERM, _end)


def begun() -> bool:
    """Whether this process is a trial, or was started by one."""
    return _begun


def main(ready: Ready) -> int:
    """Be the trial; its exit code."""
    global _begun
    try:
        _begun = True
        gc.enable()
        code, told = attempt(ready)
        if told is not None:
            ready.writer.failed(told)
            flush()
            sys.stderr.write(told.message + "\n" if told.type == "SystemExit" else told.traceback)
        _finish()
    except SystemExit as leave:  # SIGTERM while the process was on its way out
        code = leave.code if isinstance(leave.code, int) else 1
    flush()
    return code


def run_inline(order: Order, echo: Callable[[str], None]) -> Ended:
    """One attempt in this very process: its terminal is the user's, and `breakpoint()` works.

    `echo` gets each report, notice and saved state as a line. Files go to a temporary folder that is told at
    the end. All is set as in a trial but the seed of `hash()`, which only a new interpreter can take.
    """
    os.environ.update({"CUBLAS_WORKSPACE_CONFIG": ":4096:8"})
    import_from(order.import_path)
    paths = trial_paths.TrialPaths(tempfile.mkdtemp(prefix=f"orchestrate-try-{order.trial_id}-"), shared=True)
    started = time.time()
    code, told = attempt(prepare(order, None, paths, _Echo(echo)))
    if told is not None and told.type == "KeyboardInterrupt":
        raise KeyboardInterrupt
    if any(paths.root.iterdir()):
        echo(f"files: {paths.root}")
    else:
        paths.root.rmdir()
    return Ended(time.time(), exit_code=code, failure=told, entered=started, left=time.time())


class _Echo(JournalWriter):
    """A journal for a terminal."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo

    def report(self, step: int, text: str) -> None:
        self._echo(f"step {step}: {text}")

    def called(self, kind: str) -> None:
        """Nothing to say."""

    def put(self, kind: str, value: Any) -> None:
        if kind == "N":
            self._echo(value)
        elif kind == "S":
            self._echo(f"saved the state of step {value[0]}")


def attempt(ready: Ready) -> tuple[int, Failure | None]:
    """Call the trainer; the exit code, and what it raised."""
    try:
        if ready.error is not None:
            raise ready.error
        _train(ready)
    except SystemExit as leave:
        if leave.code is None or isinstance(leave.code, int):
            return (leave.code or 0) & 0xFF, None
        return 1, failure.describe(leave, _roots(ready.order))
    except BaseException as raised:
        return 1, failure.describe(raised, _roots(ready.order))
    return 0, None


def _train(ready: Ready) -> None:
    """Seed, call the trainer, and report what it returns."""
    if ready.order.references:
        config.resolve(ready.arguments[0], ready.order, ready.paths)
    ready.setup.seed()
    ready.writer.called("E")
    try:
        result = ready.function(*ready.arguments)
    finally:
        ready.writer.called("L")
    if isinstance(result, Mapping):
        ready.run.report(result)
    elif result is not None:
        ready.run.report({ready.order.returned: result})


def flush() -> None:
    """Write out what is buffered; a reader that has gone is no error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue


def _roots(order: Order) -> tuple[str, ...]:
    return (*order.import_path, order.cwd)


def _end(number: int, frame: object) -> None:
    """SIGTERM raises SystemExit once, so that `finally` and `with` blocks have the grace time to save."""
    if not _begun:  # this is the process that trials are forked from, or a trial that has nothing to save yet
        os._exit(TERMINATED)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(TERMINATED)


def _restore_sigterm() -> None:
    """Processes that the trainer forks get the default back: they end at once, as anywhere else."""
    if _begun and signal.getsignal(signal.SIGTERM) in (_end, signal.SIG_IGN):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_restore_sigterm)


def _finish() -> None:
    """What an interpreter does at its end: wait for threads, run the exit handlers."""
    if threading.active_count() > 1:
        threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
