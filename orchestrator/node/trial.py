"""Inside the trial: prepare the process, call the trainer, and tell how that went."""

from __future__ import annotations

import atexit
import faulthandler
import gc
import importlib
import inspect
import io
import itertools
import linecache
import os
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import TrainerError, nearest
from orchestrator.model import Ended, Failure, Order
from orchestrator.node import failure, places, processes, seeding, settings, stack
from orchestrator.node.journal import Writer
from orchestrator.node.kind import Kind, trial_environment
from orchestrator.node.run import Run

TERMINATED = 128 + signal.SIGTERM  # exit code of a trial that was asked to end and did


def preload(kind: Kind) -> BaseException | None:
    """Import the trainer's module and what it will need; what it raised, if it did. Starts no thread."""
    _import_from(kind.import_path)
    sys.argv = [kind.trainer]
    _enter_cwd(kind)
    sys.stdout, sys.stderr = _console(1), _console(2)
    faulthandler.enable()
    gc.disable()
    seeding.Setup(seeding.IMPORT_SEED, 1, "off").apply()
    try:
        importlib.import_module(kind.trainer.partition(":")[0])
        if kind.start == "fork":
            _warm()
    except BaseException as error:  # an exit, too: it is the trial's failure, told there
        return error
    finally:
        if kind.start == "fork":
            _keep_for_children()
    return None


def _import_from(folders: Sequence[str]) -> None:
    """Look there before anywhere else."""
    sys.path[:] = [*folders, *(path for path in sys.path if path not in folders)]


def _warm() -> None:
    """Do now, once, what every trial would do first: late imports, caches of classes, sources for tracebacks."""
    if "torch" in sys.modules:
        seeding.warm_torch()
    settings.create({"a": {"b": [0, 0.5, "", True, None]}})
    call(lambda cfg: None, None, None)
    for name in ("trial", "seeding", "zygote"):
        linecache.getlines(str(Path(__file__).with_name(f"{name}.py")))


def _keep_for_children() -> None:
    """What is loaded now belongs to all trials: no collection walks (and copies) it, no trial's end destroys it."""
    gc.collect()
    gc.freeze()
    finalizers = _Finalizers(weakref.finalize._registry)  # type: ignore[attr-defined]
    for finalizer in finalizers:
        finalizer.atexit = False  # torch alone has 170, 30 ms at each exit
    weakref.finalize._registry = finalizers  # type: ignore[attr-defined]
    processes.gather_pages()


class _Finalizers(dict[Any, Any]):
    """What `weakref` keeps; at its exit a trial looks at its own only. To look at one is to copy the page it is on."""

    def __init__(self, inherited: Mapping[Any, Any]) -> None:
        super().__init__(inherited)
        self._last = next(reversed(self), None)

    def items(self) -> Any:
        """Those from before the fork need not run."""
        return list(itertools.takewhile(lambda item: item[0] is not self._last, reversed(super().items())))


def _console(fd: int) -> io.TextIOWrapper:
    """A stream whose lines arrive as they are printed; a module may keep it from its import on."""
    raw = io.FileIO(fd, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _enter_cwd(kind: Kind) -> None:
    """The project's folder where this node has it, else the copy of its code."""
    for folder in (kind.cwd, *kind.import_path):
        if folder and os.path.isdir(folder):
            os.chdir(folder)
            return


def main(order: Order, gpus: Sequence[str], journal: int, stacks: int, error: BaseException | None) -> int:
    """Be the trial; its exit code. `error` is what importing the trainer's module raised.

    `stacks` is a file for what its threads do when somebody asks.
    """
    os.environ.update(trial_environment(order.threads, list(gpus)))
    gc.enable()
    stack.answer_to_signal(stacks)
    _end_on_sigterm()
    writer = Writer(journal)
    try:
        code, told = attempt(order, writer, places.place(order), error)
        if told is not None:
            writer.failed(told)
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
    os.environ.update({key: value for key, value in trial_environment(order.threads, []).items() if value})
    _import_from(order.import_path)
    place = places.Place(Path(tempfile.mkdtemp(prefix=f"orchestrate-try-{order.trial_id}-")), shared=True)
    started = time.time()
    code, told = attempt(order, _Echo(echo), place)
    if told is not None and told.type == "KeyboardInterrupt":
        raise KeyboardInterrupt
    if any(place.root.iterdir()):
        echo(f"files: {place.root}")
    else:
        place.root.rmdir()
    return Ended(time.time(), exit_code=code, failure=told, entered=started, left=time.time())


class _Echo(Writer):
    """A journal for a terminal."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo

    def report(self, step: int, text: str) -> None:
        self._echo(f"step {step}: {text}")

    def put(self, kind: str, value: Any) -> None:
        if kind == "N":
            self._echo(value)
        elif kind == "S":
            self._echo(f"saved the state of step {value[0]}")


def attempt(
    order: Order, writer: Writer, place: places.Place, error: BaseException | None = None
) -> tuple[int, Failure | None]:
    """Call the trainer; the exit code, and what it raised."""
    try:
        if isinstance(error, SystemExit):
            raise TrainerError("the trainer's module exits when it is imported", where=order.trainer) from error
        if error is not None:
            raise error
        train(order, writer, place)
    except SystemExit as leave:
        if leave.code is None or isinstance(leave.code, int):
            return (leave.code or 0) & 0xFF, None
        return 1, failure.describe(leave, _roots(order))
    except BaseException as raised:
        return 1, failure.describe(raised, _roots(order))
    return 0, None


def train(order: Order, writer: Writer, place: places.Place) -> None:
    """Seed, build `cfg` and `run`, call the trainer, and report what it returns."""
    function = find(order.trainer)
    run = Run(order, writer, place)
    cfg = settings.build(order, place.files)
    settings.imitate_hydra(order, place.files)
    seeding.name_operations(writer.notice)
    seeding.Setup(order.seed, order.threads, order.deterministic).apply()
    writer.called("E")
    try:
        result = call(function, cfg, run)
    finally:
        writer.called("L")
    if isinstance(result, Mapping):
        run.report(result)
    elif result is not None:
        run.report({order.returned: result})


def find(trainer: str) -> Callable[..., Any]:
    """The function that "module:function" names. Of one under `@hydra.main`, the function below it."""
    module_name, _, path = trainer.partition(":")
    found: Any = importlib.import_module(module_name)
    for name in path.split("."):
        if not hasattr(found, name):
            near = nearest(name, dir(found))
            raise TrainerError(
                f"{module_name} has no {path!r}", where=trainer, fix=f"did you mean {near!r}?" if near else None
            )
        found = getattr(found, name)
    code = getattr(found, "__code__", None)
    if code is not None and code.co_filename.endswith(os.path.join("hydra", "main.py")):
        found = found.__wrapped__
    if not callable(found):
        raise TrainerError(f"{path!r} is a {type(found).__name__}, not a function", where=trainer)
    return found  # type: ignore[no-any-return]


def call(function: Callable[..., Any], cfg: Any, run: Any) -> Any:
    """`function(cfg, run)`, or `function(cfg)` if it has no second parameter that is meant for `run`.

    A second parameter with a default is, if it is called `run`.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(inspect.signature(function).parameters.values())
    positional = [parameter for parameter in parameters if parameter.kind in kinds]
    several = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    second = positional[1] if len(positional) > 1 else None
    if several or (second is not None and (second.default is inspect.Parameter.empty or second.name == "run")):
        return function(cfg, run)
    return function(cfg)


def flush() -> None:
    """Write out what is buffered; a reader that has gone is no error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue


def _roots(order: Order) -> tuple[str, ...]:
    return (*order.import_path, order.cwd)


def _end_on_sigterm() -> None:
    """SIGTERM raises SystemExit once, so that `finally` and `with` blocks have the grace time to save.

    Processes that the trainer forks get the default back: they end at once, as anywhere else.
    """

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, end)
    os.register_at_fork(after_in_child=lambda: _restore_sigterm(end))


def _restore_sigterm(ours: Any) -> None:
    if signal.getsignal(signal.SIGTERM) in (ours, signal.SIG_IGN):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _finish() -> None:
    """What an interpreter does at its end: wait for threads, run the exit handlers."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
