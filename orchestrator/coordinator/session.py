"""One run of a sweep: holds its folder, and drives its trials to their ends.

`opening` writes its plan; `drive` runs what waits. Nothing is printed here.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from orchestrator.coordinator.loop import Coordinator, Transition
from orchestrator.coordinator.trainer_check import TrainerCheck
from orchestrator.coordinator.trial_source import PlanSource
from orchestrator.decide.early_abort import Verdict
from orchestrator.errors import LockedError, ManifestError
from orchestrator.executors.gpus import Claim
from orchestrator.folder.lock import Lock, Machine
from orchestrator.folder.paths import SweepFolder
from orchestrator.folder.requests import discard_requests
from orchestrator.manifest import db, migrate
from orchestrator.manifest.writer import Manifest
from orchestrator.model.rows import PlanRow
from orchestrator.model.sweep import Resources
from orchestrator.ports import ENDING, Clock, Executor
from orchestrator.provenance.code import import_path
from orchestrator.provenance.copy_watch import CopyWatch
from orchestrator.tracking import control


@dataclass(frozen=True)
class RunLimits:
    """What the user allows one run, and wants of its plan."""

    max_concurrent: int | None = None
    trials: int | None = None
    wait: bool = True  # for GPUs that others use
    add: bool = False  # the trials of the last plan stay


@dataclass(frozen=True)
class Launch:
    """What is needed to run the trials that wait."""

    start_executor: Callable[[], Executor]
    sizes: Sequence[Resources]  # what they ask for
    here: Claim | None  # the GPUs of the executor's workers, if it starts them on this machine

    @property
    def short(self) -> bool:
        """Whether others use the GPUs that a trial needs."""
        return self.here is not None and self.here.short_of(self.sizes)

    @property
    def users(self) -> str:
        return ", ".join(self.here.left_out) if self.here is not None else ""

    def executor(self) -> Executor:
        """Raises ResourceError if a trial could never run; then none is left."""
        executor = self.start_executor()
        try:
            for resources in self.sizes:
                executor.check(resources)
        except BaseException:
            executor.close()
            raise
        return executor


@dataclass
class Session:
    """A sweep held for writing."""

    folder: SweepFolder
    manifest: Manifest
    lock: Lock
    plan: PlanRow | None = None
    launch: Launch | None = None  # where a trial waits
    executor: Executor | None = None  # once the launch has what it needs
    check: TrainerCheck | None = None
    first: list[str] = field(default_factory=list)  # trials to run before the rest, of earlier plans too
    interrupted: bool = False
    ended_early: Verdict | None = None  # why not all trials were run
    notes: list[str] = field(default_factory=list)  # what the user should know before it starts
    watch: CopyWatch | None = None  # of the copy of the code
    released: bool = False
    now: Clock = time.time

    def release(self) -> None:
        """Close everything, once. The folder can then be copied as it is."""
        if self.released:
            return
        self.released = True
        with ExitStack() as last:
            last.callback(self.lock.release)
            last.callback(self.manifest.close)
            if self.executor is not None:
                last.callback(self.executor.close)
            if self.check is not None:
                self.check.close()


def hold(folder: SweepFolder, machine: Machine | None = None) -> Session:
    """Take the sweep for writing, until `release`. Raises LockedError, ManifestError."""
    lock = Lock.take(folder, machine)
    try:
        discard_requests(folder)
        return Session(folder, Manifest.open(folder, lock.check), lock)
    except BaseException:
        lock.release()
        raise


def drive(
    session: Session,
    limits: RunLimits,
    each: Callable[[Coordinator, list[Transition]], None],
) -> None:
    """Run every trial that waits; returns when all have ended or the user has interrupted."""
    assert session.plan is not None
    assert session.executor is not None
    source = PlanSource(session.manifest, session.plan.plan, limits.trials, session.first)
    coordinator = Coordinator(
        session.manifest,
        session.executor,
        source,
        session.plan,
        code_path(session),
        max_concurrent=limits.max_concurrent,
        now=session.now,
    )
    watch = session.watch or CopyWatch(_tree(session))

    def after_tick(transitions: list[Transition]) -> None:
        if any(not transition.state.open for transition in transitions):
            for text in watch.news(last=coordinator.done):
                coordinator.warn(text)
        each(coordinator, transitions)

    with interruptible(session, coordinator.request_stop, coordinator.request_kill):
        coordinator.run(after_tick)
    session.interrupted = session.interrupted or coordinator.stopping
    session.ended_early = coordinator.early_abort.verdict


def code_path(session: Session) -> Sequence[str]:
    """Where trials import from: the sweep's copy of the project's files."""
    return import_path(_tree(session))


def _tree(session: Session) -> Path:
    assert session.plan is not None
    return session.folder.code / str(session.plan.provenance.get("tree", ""))


@contextmanager
def interruptible(session: Session, stop: Callable[[], None], kill: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C, a closed terminal and `ENDING` end the run: the first one in order, the second one at once.

    To be entered after Ray has started, which replaces signal handlers.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not session.interrupted:
            session.interrupted = True
            stop()
        else:
            kill()

    signals = (signal.SIGINT, signal.SIGHUP, *ENDING)
    before: dict[signal.Signals, Any] = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_tracking(session: Session) -> Callable[[], list[str]]:
    """Start the trackers; call the result after `release`: it names those that have not received everything."""
    assert session.plan is not None
    processes = control.start(session.folder, session.plan.spec)

    def finish() -> list[str]:
        behind = control.finish(processes)
        settle(session.folder)
        return behind

    return finish


def settle(folder: SweepFolder) -> None:
    """Leave a single manifest file: a reader at `release`, such as the tracker, kept SQLite from merging its log."""
    if db.written_ahead(folder.manifest):
        with suppress(LockedError, ManifestError):  # another coordinator goes on, or the disk is full: nothing is lost
            lock = Lock.take(folder)
            try:
                migrate.settle(folder.manifest)
            finally:
                lock.release()
