"""Whether the trials of a zygote can be forked from it, and what they take over from its imports.

The promise is that nobody can tell a forked trial from a fresh process. What the imports have set stays set in trials;
files that are only read are opened again. Where that is not enough, trials start as fresh processes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.node.launch import import_watch, leftovers
from orchestrator.node.launch.leftovers import Descriptors, OpenFile, Reason
from orchestrator.node.shared.process_settings import ProcessSettings, current_settings
from orchestrator.node.shared.zygote_spec import ZygoteSpec

# Threads that a process may have when it is forked. A thread missing here costs a slower start; one that should not be
# here, a trial that hangs for ever. jemalloc's (in pyarrow, so in pandas) restarts in the child: 150 of 150 forks
# computed with pandas and it.
HARMLESS_THREADS = frozenset({"jemalloc_bg_thd"})
_PATIENCE = 1.0  # seconds for threads to end: one that was joined exists for a moment longer
_MAX_REASONS = 3  # that a message names


class Inspection:
    """Watches the imports of a zygote, and judges what they have left."""

    def __init__(self, spec: ZygoteSpec) -> None:
        self._watch = import_watch.ImportWatch(spec)
        self._left: Descriptors = {}  # by imports that failed; the next one does not import everything again
        self._settings = self._settings_before = current_settings()
        self._on_child: Any = None  # a handler of SIGCHLD that a module has set
        self._blocks_sigchld = False
        self._collects = True
        self._files: list[OpenFile] = []
        self.unsafe: str | None = None  # why trials cannot be forked

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch imports. `judge` follows."""
        self._before = leftovers.descriptors()
        on_child = signal.getsignal(signal.SIGCHLD)
        with self._watch.watching():
            yield
        self._settings = current_settings()
        self._collects = self._collects and gc.isenabled()
        gc.disable()
        if signal.getsignal(signal.SIGCHLD) != on_child:
            self._on_child = signal.getsignal(signal.SIGCHLD)
        self._blocks_sigchld |= signal.SIGCHLD in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def judge(self, imported: bool) -> None:
        """Decide whether trials can be forked.

        A trial that only reports why the import has failed can be, whatever that import has left.
        """
        reasons = dangers()
        if not imported:
            self._left = leftovers.new(self._before, self._left)
        elif not reasons:
            self._files, reasons = leftovers.find(self._before, self._left)
        self.unsafe = self._in_words(reasons, self._watch.acts() if imported else {})

    def check_again(self) -> None:
        """Judge once more, after work that could have started something."""
        self.unsafe = self.unsafe or self._in_words(dangers(), {})

    def enter_trial(self) -> None:
        """In a fork, take over what the imports have left, as a fresh process would have it."""
        for file in self._files:
            file.reopen()
        if self._on_child is not None:
            signal.signal(signal.SIGCHLD, self._on_child)
        if self._blocks_sigchld:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        if self._collects:
            gc.enable()

    def settings_for(self, worker: ProcessSettings) -> ProcessSettings:
        """A worker's settings, but for those that the imports have changed."""
        return worker.with_changes(self._settings_before, self._settings)

    def _in_words(self, reasons: Sequence[Reason], acts: Mapping[str, str]) -> str | None:
        found = [(self._watch.line(reason.kind), reason.what) for reason in reasons]
        found += [(line, what) for what, line in acts.items()]
        texts = list(dict.fromkeys(f"{line or 'it'} {what}" for line, what in found))
        if len(texts) > _MAX_REASONS:
            texts[_MAX_REASONS - 1 :] = [f"{len(texts) - _MAX_REASONS + 1} more reasons"]
        *first, last = texts or [""]
        return f"when it is imported, {', '.join(first)}{' and ' if first else ''}{last}" if texts else None


def dangers(proc: str = "/proc/self", patience: float = _PATIENCE) -> list[Reason]:
    """Why a fork of this process might hang or fail: threads, CUDA."""
    if _has_cuda(proc):
        return [Reason("initialises CUDA")]
    deadline = time.monotonic() + patience
    while names := _harmful_threads(proc):
        if time.monotonic() > deadline:
            return [Reason(f"starts threads ({', '.join(sorted(names))})", import_watch.THREAD)]
        time.sleep(0.001)
    return []


def _harmful_threads(proc: str) -> set[str]:
    """The names of all threads but this one and those known to be harmless."""
    names = {_thread_name(proc, tid) for tid in os.listdir(f"{proc}/task") if int(tid) != os.getpid()}
    return names - HARMLESS_THREADS - {""}


def _thread_name(proc: str, tid: str) -> str:
    try:
        with open(f"{proc}/task/{tid}/comm") as file:
            return file.read().strip()
    except OSError:  # it has ended since it was listed
        return ""


def _has_cuda(proc: str) -> bool:
    """CUDA keeps nvidia-uvm open. NVML, with which a fork is safe, opens the other devices only."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return True
    for fd in os.listdir(f"{proc}/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"{proc}/fd/{fd}").startswith(leftovers.CUDA):
                return True
    return False
