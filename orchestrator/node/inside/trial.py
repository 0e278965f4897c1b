"""Run a trial in this process: prepare it, call the trainer, and write to the journal how that ended.

`prepare` does all that follows from the order alone. A zygote does it before the fork, where it costs less than half as
much as after it (`launch.warm` says why).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import inspect
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import TrainerError
from orchestrator.model.events import Failure
from orchestrator.model.order import Order
from orchestrator.model.trainer import GENERATOR
from orchestrator.node.inside import config, ending, failure, imports, references, seeding, stack, used_files
from orchestrator.node.inside.run import Run, report_returned
from orchestrator.node.programs.table import look_up
from orchestrator.node.shared import trial_paths
from orchestrator.node.shared.journal import JournalWriter, Left
from orchestrator.node.shared.zygote_spec import trial_environment

TERMINATED = 128 + signal.SIGTERM  # exit code of a trial that ended because it was asked to

_config = config.ReusedConfig()
_is_trial = False
_modules_handler: Any = None  # of SIGTERM, if the trainer's module has set one


@dataclass(frozen=True)
class PreparedTrial:
    """A trial that can be called; only its process is missing."""

    order: Order
    paths: trial_paths.TrialPaths
    writer: JournalWriter
    function: Callable[..., Any]
    arguments: tuple[Any, ...]  # a DictConfig, and `run` if the function takes it
    run: Run
    setup: seeding.Setup
    error: BaseException | None = None  # what went wrong so far; the trial raises it


def import_from(folders: Sequence[str]) -> None:
    """Put these folders first on `sys.path`."""
    sys.path[:] = [*folders, *(path for path in sys.path if path not in folders)]


def prepare(
    order: Order,
    gpus: Sequence[str] | None,
    paths: trial_paths.TrialPaths,
    writer: JournalWriter,
    error: BaseException | None = None,
) -> PreparedTrial:
    """Do all that needs no process of its own. `error` is what the import of the trainer's module raised."""
    run = Run(order, writer, paths)
    setup = seeding.Setup(order.seed, order.threads, order.deterministic)
    try:
        if isinstance(error, SystemExit):
            raise TrainerError(
                "the trainer's module exits when it is imported",
                where=str(order.trainer),
                fix="put what ends it below `if __name__ == '__main__':`",
            ) from error
        if error is not None:
            raise error
        for name, value in trial_environment(order.threads, gpus).items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        function, takes_run = look_up(order.trainer)  # this may import modules, so it comes before the setup
        setup.configure()
        seeding.notice_nondeterminism(writer.notice)
        seeding.tell_draws(writer.notice)
        references.imitate_logging()
        cfg = _config.of(order.config)
        used_files.prepare()
        return PreparedTrial(order, paths, writer, function, (cfg, run) if takes_run else (cfg,), run, setup)
    except BaseException as raised:
        return PreparedTrial(order, paths, writer, prepare, (), run, setup, raised)


def install_signal_handlers(stack_fd: int) -> None:
    """End at SIGTERM, and write the threads' stacks to `stack_fd` at `stack.SIGNAL`. To be called after the imports.

    A handler that the trainer's module has set for SIGTERM is kept for the trial; a zygote never runs it.
    """
    global _modules_handler
    stack.install_handler(stack_fd)
    found = signal.getsignal(signal.SIGTERM)
    if found not in (signal.SIG_DFL, None, _on_sigterm):  # None: a handler in C, which we could not put back
        _modules_handler = found
    if found is not None:
        signal.signal(signal.SIGTERM, _on_sigterm)


def is_trial() -> bool:
    """Whether this process is a trial or a descendant of one; False in a zygote."""
    return _is_trial


def main(prepared: PreparedTrial, forked: bool) -> int:
    """Run the trial to its end, exit handlers included; returns the exit code.

    Nothing follows in a forked process. A fresh one is to return to the interpreter, which destroys all objects.
    """
    global _is_trial
    process = os.getpid()
    code = 1
    try:
        if forked:
            ending.exempt_inherited_objects()
        _is_trial = True
        used_files.enter_trial(prepared.writer)
        if _modules_handler is not None:
            signal.signal(signal.SIGTERM, _modules_handler)
        code, raised, error = call_trainer(prepared)
        if raised is not None and error is not None:
            if os.getpid() == process:  # not in a process that the trainer has forked
                prepared.writer.failed(raised)
            ending.show(error, raised)
        ending.run_exit_handlers()
        if forked:
            ending.finish_open_objects(code, prepared.writer.notice)
    except SystemExit as leave:  # SIGTERM arrived after the trainer had returned
        code = leave.code if isinstance(leave.code, int) else 1
    ending.flush_output()
    return code


def call_trainer(prepared: PreparedTrial) -> tuple[int, Failure | None, BaseException | None]:
    """Call the trainer; returns the exit code, and what it raised, described and as it is."""
    try:
        if prepared.error is not None:
            raise prepared.error
        _train(prepared)
    except BaseException as raised:
        if isinstance(raised, SystemExit) and isinstance(raised.code, (int, type(None))):
            return _exit_code(raised) & 0xFF, None, raised
        return _exit_code(raised), failure.describe(raised, _roots(prepared.order)), raised
    return 0, None, None


def _exit_code(raised: BaseException) -> int:
    """What the trainer asked for; of it, a process's exit code has eight bits, which 256 would pass as 0."""
    code = raised.code if isinstance(raised, SystemExit) else 1
    return int(code or 0) if code is None or isinstance(code, int) else 1


def _train(prepared: PreparedTrial) -> None:
    """Seed, call the trainer, and report what it returns."""
    references.enter(prepared.arguments[0], prepared.order, prepared.paths)
    prepared.setup.seed()
    process = os.getpid()
    prepared.writer.entered()
    try:
        result = prepared.function(*prepared.arguments)
        if result is not None:
            result = _completed(result, str(prepared.order.trainer))
        left = Left(time.time(), time.monotonic(), 0)
        if result is not None:
            report_returned(prepared.run, prepared.order.returned, result)
    except BaseException as raised:
        left = Left(time.time(), time.monotonic(), _exit_code(raised))
        raise
    finally:
        if os.getpid() == process:  # not in a process that the trainer has forked
            prepared.writer.left(left)
            used_files.tell(prepared.writer)
            imports.name_live_modules(prepared.writer.notice)
            used_files.name_live_code(prepared.writer.notice, prepared.order.folder)


def _completed(result: Any, trainer: str) -> Any:
    """What a call of the trainer gave, or what comes of it if that is a coroutine."""
    if type(result) in (dict, float, int):
        return result  # the common cases, for which `inspect` need not be touched
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TrainerError("returned a generator, so nothing of it has run", where=trainer, fix=GENERATOR)
    if not inspect.isawaitable(result):
        return result
    import asyncio

    async def wait() -> Any:
        return await result

    return asyncio.run(wait())


def _roots(order: Order) -> tuple[str, ...]:
    return (*order.import_path, order.cwd)


def _on_sigterm(number: int, frame: object) -> None:
    """Exit once, so that `finally` and `with` blocks have the grace time to save something."""
    if not _is_trial:  # a zygote, or a trial that has not started and has nothing to save
        os._exit(TERMINATED)
    signal.signal(signal.SIGTERM, _ignore)
    sys.exit(TERMINATED)  # looked up now: libraries replace it to learn of an exit


def _ignore(number: int, frame: object) -> None:
    """Not SIG_IGN, which programs that the trial starts would inherit."""


_forking: set[int] = set()  # threads that have blocked SIGTERM, to fork


def _hold_sigterm() -> None:
    """Block SIGTERM until a new process can be ended by it: our handler would only exit from a fork handler there."""
    if not _is_trial or _signal.getsignal(_signal.SIGTERM) not in (_on_sigterm, _ignore):
        return
    if _signal.SIGTERM not in _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTERM,)):
        _forking.add(_thread.get_ident())


def _restore_sigterm() -> None:
    """Let SIGTERM end processes that the trainer forks, as it does by default."""
    if _is_trial and _signal.getsignal(_signal.SIGTERM) in (_on_sigterm, _ignore):
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    _release_sigterm()


def _release_sigterm() -> None:
    """After a fork, let a SIGTERM come that has been held."""
    if _thread.get_ident() in _forking:
        _forking.remove(_thread.get_ident())
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGTERM,))


os.register_at_fork(before=_hold_sigterm, after_in_parent=_release_sigterm, after_in_child=_restore_sigterm)
