"""Do in the zygote, once, whatever each of its trials would do again: imports above all.

After a fork, a page of memory that the trial writes to is copied first (copy-on-write), which takes longer than most of
the trial's own work on it. Python writes to every object that it uses, since it counts references. So a short trial
costs as much as the pages it touches. It touches fewer if, before the fork, names were looked up, code was specialised
and objects lie close together.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import functools
import gc
import importlib
import io
import itertools
import linecache
import logging
import math
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.model.order import Order
from orchestrator.model.sweep import SweepSpec, TrialSpec
from orchestrator.node.inside import config, ending, imports, seeding, trial
from orchestrator.node.inside.run import Run
from orchestrator.node.programs.table import look_up
from orchestrator.node.shared import memory_pages, processes
from orchestrator.node.shared.journal import JournalWriter
from orchestrator.node.shared.trial_paths import TrialPaths
from orchestrator.node.shared.zygote_spec import ZygoteSpec

_REHEARSALS = 20  # Python specialises code that has run a few times

# Forks split huge pages into small ones; collapsing them again makes each later trial 1 ms faster. It takes 0.3 s where
# a virtual machine asks its host for memory.
_IF_QUICK = {1, 4, 32, 128}  # after so many trials it is tried, until it has once taken longer than _QUICK
_QUICK = 0.01  # seconds
_EVERY = 256  # trials after which it is done in any case
_DELETING = (
    shutil.rmtree,
    os.remove,
    os.unlink,
    os.rmdir,
    Path.unlink,
    Path.rmdir,
    tempfile.TemporaryDirectory.cleanup,
)

_shared_finalizers: list[weakref.finalize[Any, Any]] | None = None  # of objects from before the first fork
_shared_deletions: list[Callable[[], Any]] = []  # exit handlers from then that delete files


def preload(spec: ZygoteSpec) -> BaseException | None:
    """Import the trainer's module; returns what that raised."""
    os.environ.update(spec.env)
    trial.import_from(spec.import_path)
    imports.import_from_copy(spec.import_path)
    sys.argv = [str(spec.trainer)]
    _enter_cwd(spec)
    sys.stdout, sys.stderr = _console(1), _console(2)
    faulthandler.enable()
    setup = seeding.Setup(seeding.IMPORT_SEED, 1, "off")
    setup.configure()
    setup.seed()
    try:
        roots = (*spec.import_path, spec.cwd)
        with _deletions_once(), _collections_deferred(), seeding.looking_for_draws(roots):
            importlib.import_module(spec.trainer.module)
            imports.look_at_modules()
            with contextlib.suppress(Exception):  # for packages that import on demand; a missing function fails a trial
                look_up(spec.trainer)
    except BaseException as error:  # SystemExit too: the trial raises it again, and fails
        return error
    return None


@contextlib.contextmanager
def _deletions_once() -> Iterator[None]:
    """Meanwhile, have exit handlers that delete files run in this process only: its forks share what they delete.

    Some libraries make a temporary folder when they are imported, and register `shutil.rmtree` for it.
    """
    register, importer = atexit.register, os.getpid()
    importing = True

    def once(function: Callable[..., Any], *args: Any, **options: Any) -> None:
        if os.getpid() == importer:
            function(*args, **options)

    def registering(function: Callable[..., Any], *args: Any, **options: Any) -> Any:  # a module may keep it
        if importing and _deletes(function):
            _shared_deletions.append(register(functools.partial(once, function, *args, **options)))
            return function
        return register(function, *args, **options)

    atexit.register = registering  # type: ignore[assignment]
    try:
        yield
    finally:
        importing = False
        atexit.register = register


def _deletes(function: Any) -> bool:
    if isinstance(function, functools.partial):
        return _deletes(function.func)
    return getattr(function, "__func__", function) in _DELETING


@contextlib.contextmanager
def _collections_deferred() -> Iterator[None]:
    """Collect no garbage meanwhile: with torch, that takes 0.3 s. What modules ask of `gc` holds afterwards."""
    enable, disable, is_enabled = gc.enable, gc.disable, gc.isenabled
    deferred = wanted = True

    def switch(on: bool) -> None:  # modules may keep a reference to it
        nonlocal wanted
        wanted = on
        if not deferred:
            (enable if on else disable)()

    disable()
    gc.enable, gc.disable = functools.partial(switch, True), functools.partial(switch, False)
    gc.isenabled = lambda: wanted if deferred else is_enabled()
    try:
        yield
    finally:
        deferred = False
        gc.enable, gc.disable, gc.isenabled = enable, disable, is_enabled
        switch(wanted)


def prepare_for_forks() -> None:
    """Do now what every trial would do first. This starts no thread, and must run with one thread only."""
    with contextlib.suppress(Exception):  # if a trial needs what fails here, it fails there and is reported
        _rehearse()
    _exempt_from_cleanup()
    for _ in range(_REHEARSALS):
        ending.open_objects()
    memory_pages.fill_heap_gaps()
    memory_pages.collapse_into_huge_pages()


def _rehearse() -> None:
    """Run an empty trial some times, so that names are looked up and code is specialised."""
    for module in (trial, seeding):
        linecache.getlines(str(module.__file__))  # tracebacks read them
    linecache.getlines(str(Path(__file__).with_name("zygote.py")))
    if "torch" in sys.modules:
        seeding.warm_torch()
    with open(os.devnull, "wb") as null:
        empty = _empty_trial(JournalWriter(null.fileno()))
        for _ in range(_REHEARSALS):
            processes.die_with(os.getppid())  # is so already
            trial.call_trainer(empty)
            ending.flush_output()


def _empty_trial(writer: JournalWriter) -> trial.PreparedTrial:
    """A trial that only reads its config and reports a number."""
    sweep = SweepSpec(name="", trainer="", deterministic="off")
    order = Order.of(sweep, TrialSpec("", {"a": {"b": [0, 0.5, "", True, None]}}, {}, seeding.IMPORT_SEED, ""))
    paths = TrialPaths("", shared=True)
    run = Run(order, writer, paths)
    setup = seeding.Setup(order.seed, order.threads, order.deterministic)
    setup.configure()

    def train(cfg: Any, run: Run) -> dict[str, float]:
        run.report({"x": 0.5}, step=1)
        return {"x": cfg.a.b[1]}

    return trial.PreparedTrial(order, paths, writer, train, (config.create(order.config), run), run, setup)


def _exempt_from_cleanup() -> None:
    """Have no trial collect, finalize or flush what exists now: each would copy the pages that it lies on."""
    global _shared_finalizers
    gc.collect()
    gc.freeze()
    finalizers = _Finalizers(weakref.finalize._registry)  # type: ignore[attr-defined]
    _shared_finalizers = [finalizer for finalizer in finalizers if finalizer.atexit]
    for finalizer in _shared_finalizers:
        finalizer.atexit = False  # they would remove what all trials share; torch alone has 170, 30 ms at each exit
    weakref.finalize._registry = finalizers  # type: ignore[attr-defined]
    handlers = logging._handlerList  # type: ignore[attr-defined]
    handlers[:] = [handler for handler in handlers if not _needs_no_flush(handler())]
    logging._at_fork_reinit_lock_weakset = _Locks(logging._at_fork_reinit_lock_weakset)  # type: ignore[attr-defined]


def end() -> None:
    """At the end of a zygote: run what no trial has run, the finalizers and deletions of temporary folders.

    Where no trial could be forked, none has run the exit handlers either.
    """
    if _shared_finalizers is None:
        atexit._run_exitfuncs()
        return
    weakref.finalize._registry = dict(weakref.finalize._registry)  # type: ignore[attr-defined]
    for finalizer in _shared_finalizers:
        finalizer.atexit = True
    weakref.finalize._exitfunc()  # type: ignore[attr-defined]
    for delete in reversed(_shared_deletions):
        with contextlib.suppress(Exception):
            delete()


class Upkeep:
    """What a zygote does between two trials, while nobody waits for it."""

    def __init__(self, collapse_pages: Callable[[float], bool] = memory_pages.collapse_into_huge_pages) -> None:
        """`collapse_pages`: gives up after so many seconds, and returns False then."""
        self._collapse_pages = collapse_pages
        self._trials = 0
        self._quick = True

    def trial_ended(self) -> None:
        """Now and then, free what is not used any more, and collapse the pages that forks have split."""
        self._trials += 1
        if self._trials % _EVERY == 0:
            gc.collect(1)  # a full collection empties Python's free lists, which then refill from scattered pages
            self._collapse_pages(math.inf)
        elif self._trials in _IF_QUICK and self._quick:
            self._quick = self._collapse_pages(_QUICK)


def _needs_no_flush(handler: logging.Handler | None) -> bool:
    """Whether the handler writes each record at once, so that nothing is left to do at an exit."""
    if handler is None:
        return True
    cls = type(handler)
    return cls.__module__ == "torch._logging._internal" or (  # it has a class of its own that flushes at each record
        cls.emit in (logging.StreamHandler.emit, logging.NullHandler.emit)
        and cls.flush in (logging.StreamHandler.flush, logging.Handler.flush)
        and cls.close is logging.Handler.close
    )


class _Finalizers(dict[Any, Any]):
    """Replaces the registry of `weakref.finalize`: when a trial exits, it looks at its own finalizers only."""

    def __init__(self, inherited: Mapping[Any, Any]) -> None:
        super().__init__(inherited)
        self._last = next(reversed(self), None)

    def __bool__(self) -> bool:
        return next(reversed(self), None) is not self._last

    def items(self) -> Any:
        """Without those from before the fork, which need not run; to look at one copies its page."""
        return list(itertools.takewhile(lambda item: item[0] is not self._last, reversed(super().items())))


class _Locks(weakref.WeakSet[Any]):
    """Replaces the set of objects whose locks `logging` renews after a fork, in case another thread held one.

    A zygote has no other thread, so a trial need not renew them. A child that a trial forks renews them as usual.
    """

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__() if trial.is_trial() else iter(())


def _console(fd: int) -> io.TextIOWrapper:
    """A stream that passes on each line at once. Modules may keep a reference to it from their import on."""
    raw = io.FileIO(fd, "w", closefd=False)
    if os.environ.get("PYTHONUNBUFFERED"):  # each text, then
        return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _enter_cwd(spec: ZygoteSpec) -> None:
    """Go to the project's folder if this node has it, else to the copy of its code."""
    for folder in (spec.cwd, *spec.import_path):
        if folder and os.path.isdir(folder):
            os.chdir(folder)
            return
