"""What is done once for all trials of a process: imports, and whatever else each of them would do anew.

A page of memory that a trial writes to is copied for it first, which takes longer than most of what is done there; and
Python writes wherever it looks, since it counts references. So a short trial costs what it touches. It touches less
where names were looked up, code was specialised and memory was sorted before the fork.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import io
import itertools
import linecache
import logging
import os
import sys
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.model.order import Order
from orchestrator.model.sweep import SweepSpec, TrialSpec
from orchestrator.node.inside import config, seeding, trial
from orchestrator.node.inside.journal import JournalWriter
from orchestrator.node.inside.run import Run
from orchestrator.node.programs.table import look_up
from orchestrator.node.shared import processes
from orchestrator.node.shared.trial_paths import TrialPaths
from orchestrator.node.shared.zygote_spec import ZygoteSpec

_REHEARSALS = 20  # Python specialises code that has run a few times
_MENDED = {1, 4, 32, 128}  # trials after which torn huge pages are mended if that is quick: it spares each trial 1 ms
_MEND = 256  # and those after which they are in any case
_QUICK = 0.01  # seconds; 0.3 where memory is dear
_dear = False


def preload(spec: ZygoteSpec) -> BaseException | None:
    """Import the trainer's module; what it raised, if it did."""
    trial.import_from(spec.import_path)
    sys.argv = [str(spec.trainer)]
    _enter_cwd(spec)
    sys.stdout, sys.stderr = _console(1), _console(2)
    faulthandler.enable()
    gc.disable()
    setup = seeding.Setup(seeding.IMPORT_SEED, 1, "off")
    setup.settle()
    setup.seed()
    try:
        importlib.import_module(spec.trainer.module)
        with contextlib.suppress(Exception):  # a package may import on demand; what is missing is the trial's failure
            look_up(spec.trainer)
    except BaseException as error:  # an exit, too: it is the trial's failure, told there
        return error
    return None


def expect_forks() -> None:
    """Do now what every trial would do first. Starts no thread; there must be none but this one."""
    with contextlib.suppress(Exception):  # what fails here, if a trial needs it, fails there and is told
        _rehearse()
    _keep_for_children()


def _rehearse() -> None:
    for module in (trial, seeding):
        linecache.getlines(str(module.__file__))  # of tracebacks
    linecache.getlines(str(Path(__file__).with_name("zygote.py")))
    if "torch" in sys.modules:
        seeding.warm_torch()
    with open(os.devnull, "wb") as null:
        nothing = _trial_of_nothing(JournalWriter(null.fileno()))
        for _ in range(_REHEARSALS):
            processes.die_with(os.getppid())  # as it is
            trial.attempt(nothing)
            trial.flush()


def _trial_of_nothing(writer: JournalWriter) -> trial.Ready:
    """A trial that only looks at its config and reports a number."""
    sweep = SweepSpec(name="", trainer="", deterministic="off")
    order = Order.of(sweep, TrialSpec("", {"a": {"b": [0, 0.5, "", True, None]}}, {}, seeding.IMPORT_SEED, ""))
    paths = TrialPaths("", shared=True)
    run = Run(order, writer, paths)
    setup = seeding.Setup(order.seed, order.threads, order.deterministic)
    setup.settle()
    return trial.Ready(
        order, paths, writer, lambda cfg, run: cfg.a.b[1], (config.create(order.config), run), run, setup
    )


def _keep_for_children() -> None:
    """What is loaded now belongs to all trials: no collection walks (and copies) it, no trial's end destroys it."""
    gc.collect()
    gc.freeze()
    finalizers = _Finalizers(weakref.finalize._registry)  # type: ignore[attr-defined]
    for finalizer in finalizers:
        finalizer.atexit = False  # torch alone has 170, 30 ms at each exit
    weakref.finalize._registry = finalizers  # type: ignore[attr-defined]
    handlers = logging._handlerList  # type: ignore[attr-defined]
    handlers[:] = [known for known in handlers if not _keeps_nothing(known())]
    logging._at_fork_reinit_lock_weakset = _Locks(logging._at_fork_reinit_lock_weakset)  # type: ignore[attr-defined]
    processes.fill_gaps()
    processes.gather_pages()


def tidy(trials: int) -> None:
    """Now and then, after so many trials: drop what is not used any more, and mend what forks have torn."""
    global _dear
    if trials % _MEND == 0:
        gc.collect(1)  # not all: that empties Python's stores of small objects, to be filled again from everywhere
        processes.gather_pages()
    elif trials in _MENDED and not _dear:
        _dear = not processes.gather_pages(_QUICK)


def _keeps_nothing(handler: logging.Handler | None) -> bool:
    """Whether it writes out each record as it comes, so that there is nothing left to do at an exit."""
    if handler is None:
        return True
    spec = type(handler)
    return (
        spec.emit in (logging.StreamHandler.emit, logging.NullHandler.emit)
        and spec.flush in (logging.StreamHandler.flush, logging.Handler.flush)
        and spec.close is logging.Handler.close
    )


class _Finalizers(dict[Any, Any]):
    """What `weakref` keeps; at its exit a trial looks at its own only. To look at one is to copy the page it is on."""

    def __init__(self, inherited: Mapping[Any, Any]) -> None:
        super().__init__(inherited)
        self._last = next(reversed(self), None)

    def __bool__(self) -> bool:
        return next(reversed(self), None) is not self._last

    def items(self) -> Any:
        """Those from before the fork need not run."""
        return list(itertools.takewhile(lambda item: item[0] is not self._last, reversed(super().items())))


class _Locks(weakref.WeakSet[Any]):
    """What holds a lock that `logging` makes anew after a fork, since another thread might have held it.

    A process that trials are forked from has no other thread. What a trial forks itself is treated as ever.
    """

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__() if trial.begun() else iter(())


def _console(fd: int) -> io.TextIOWrapper:
    """A stream whose lines arrive as they are printed; a module may keep it from its import on."""
    raw = io.FileIO(fd, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _enter_cwd(spec: ZygoteSpec) -> None:
    """The project's folder where this node has it, else the copy of its code."""
    for folder in (spec.cwd, *spec.import_path):
        if folder and os.path.isdir(folder):
            os.chdir(folder)
            return
