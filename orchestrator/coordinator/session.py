"""One run of a sweep: takes its folder, writes its plan, and drives its trials to their ends.

`plan_sweep` makes the plan durable, or leaves nothing behind; `drive` runs what waits. Nothing is printed here.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from orchestrator.coordinator import resubmission
from orchestrator.coordinator.loop import Coordinator, Transition
from orchestrator.coordinator.trainer_check import TrainerCheck
from orchestrator.coordinator.trial_source import PlanSource
from orchestrator.decide import slots
from orchestrator.decide.early_abort import Verdict
from orchestrator.errors import ConfigError, LockedError, ManifestError, ResourceError
from orchestrator.executors.gpus import Claim
from orchestrator.folder.lock import Lock, Machine
from orchestrator.folder.paths import SweepFolder, create_folder, discard_folder, files_folder, open_files_folder
from orchestrator.folder.requests import answer_request, discard_requests, pending_requests
from orchestrator.language import plan_changes
from orchestrator.language.planning import SweepPlan
from orchestrator.manifest import db, migrate
from orchestrator.manifest.writer import Manifest
from orchestrator.model import trainer
from orchestrator.model.rows import PlanRow
from orchestrator.model.sweep import Resources, SweepSpec
from orchestrator.node.shared.zygote_spec import ZygoteSpec
from orchestrator.ports import ENDING, Clock, Executor
from orchestrator.provenance.code import Code, check_copy, import_path, keep_code
from orchestrator.provenance.copy_watch import CopyWatch
from orchestrator.provenance.environment import environment
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


def plan_sweep(
    root: Path,
    plan: SweepPlan,
    project: Path,
    rerun: str | None,
    limits: RunLimits,
    start_executor: Callable[[], Executor],
    here: Claim | None = None,
) -> Session:
    """Take the sweep and make its plan durable. If anything about the plan is wrong, a new sweep leaves nothing behind.

    `here`: the GPUs of the executor's workers, if it starts them on this machine, with this process's environment; they
    are released if there is nothing to run.
    """
    made_root, made_folder = not root.exists(), not (root / plan.spec.name).exists()
    folder = create_folder(root, plan.spec.name)
    session = hold(folder)
    try:
        write_plan(session, plan, project, rerun, limits, start_executor, here)
    except BaseException:
        try:
            if session.check is not None:
                session.check.close()  # it may be writing into the copy of the code
            ours = session.lock.held and session.manifest.in_place
            if ours and session.manifest.plans.current() is None:  # so nobody else uses it
                session.manifest.close()
                discard_folder(folder, made_folder, made_root)
        finally:
            session.release()
        raise
    return session


def write_plan(
    session: Session,
    plan: SweepPlan,
    project: Path,
    rerun: str | None,
    limits: RunLimits,
    start_executor: Callable[[], Executor],
    here: Claim | None = None,
) -> None:
    """Record the plan if all of it is right: configs, resources, trainer. Otherwise nothing is recorded.

    Fills session.plan, and session.launch where a trial waits.
    """
    manifest = session.manifest
    code = keep_code(project, session.folder.code, plan.spec.code)
    session.watch = CopyWatch(code.path)
    _open_files(session, plan.spec, str(project))
    gpus = slots.first_gpus(here.ids if here else (), plan.spec.resources)
    session.check = TrainerCheck(_zygote_spec(plan.spec, code, project, gpus), gpus, shared=here is not None)
    facts = {**environment(project, session.folder.provenance), "tree": code.tree}
    missing = [name for name in plan.spec.env if name not in os.environ]
    if missing:
        session.notes.append(
            f"sweep.env: not set in this shell, so trials have what their node has: {', '.join(missing)}"
        )
    session.notes += [*code.notes, *facts.get("problems", ())]
    with manifest.transaction():
        manifest.attempts.recover(session.now())
        before = manifest.plans.current()
        if limits.add and before is not None and before.spec.trainer != plan.spec.trainer:
            raise _other_trainer(before.spec, plan.spec)
        number = manifest.plans.begin(plan.spec, str(plan.file), plan.overrides, facts, code.code, str(project))
        total = manifest.plans.add_trials(number, plan.trials())
        if limits.add:
            total += manifest.plans.keep_last(number, total)
        session.notes += _of_last_plan(manifest, number, plan)
        summary = plan.summary()
        manifest.plans.finish(number, total, summary.excluded, summary.duplicates)
        manifest.plans.judge(number, plan.spec.objective)
        manifest.trials.resume_cancelled(number)
        if rerun:
            manifest.trials.rerun(number, rerun)
        session.notes += _of_results(manifest.trials.reseeded(number))
        sizes = manifest.trials.waiting_resources(number, limits.trials)
        if sizes:
            _prepare(session, Launch(start_executor, sizes, here), limits.wait)
        elif here is not None:
            here.release()
        session.check.result()
    session.plan = manifest.plans.current()


def _prepare(session: Session, launch: Launch, wait: bool) -> None:
    """Start the executor, unless others use the GPUs that it needs: `await_gpus` does then. Raises ResourceError."""
    session.launch = launch
    if launch.here is not None:
        launch.here.check(launch.sizes)
    if not launch.short:
        session.executor = launch.executor()
    elif not wait:
        raise ResourceError(
            f"others use the GPUs that a trial needs: {launch.users}",
            where="this machine",
            fix="without --no-wait the sweep waits for them; sweep.resources.gpus=0 runs the trials on the CPU",
        )


def await_gpus(session: Session, say: Callable[[str], None], pause: float = 1.0) -> bool:
    """Wait until the launch has its GPUs, and start the executor. False if the user has ended the session by then."""
    launch = session.launch
    if launch is None or session.executor is not None:
        return launch is not None
    assert launch.here is not None
    if session.check is not None:
        session.check.close()  # nothing of ours is to hold a GPU
    told = ""
    with _interruptible(session, lambda: None, lambda: None):
        while launch.short and not session.interrupted:
            if launch.users != told:
                told = launch.users
                say(f"waiting for GPUs that others use: {told}")
            for path, request in pending_requests(session.folder):
                session.interrupted |= request.kind == "stop"
                answer_request(path, "it ends" if session.interrupted else "not now: it waits for GPUs")
            time.sleep(pause)
            launch.here.retry()
    if session.interrupted:
        return False
    session.executor = launch.executor()
    return True


def _other_trainer(before: SweepSpec, now: SweepSpec) -> ConfigError:
    return ConfigError(
        f"the trials of the last plan are of another trainer, {before.trainer}: this plan cannot run them",
        where=f"--add: sweep.trainer ({now.trainer})",
        fix=f"start a sweep of its own: sweep.name={now.name}-2",
    )


def _of_last_plan(manifest: Manifest, number: int, plan: SweepPlan) -> list[str]:
    """What the user should know of trials that are not in this plan any more."""
    last = manifest.plans.last(number, plan_changes.SAMPLE)
    if last is None or not last.leaving:
        return []
    return plan_changes.in_words(last, plan.spec, list(itertools.islice(plan.trials(), plan_changes.SAMPLE)))


def _of_results(reseeded: int) -> list[str]:
    """What the user should know of results that stay."""
    if not reseeded:
        return []
    made = f"the result{'s' * (reseeded != 1)} of {reseeded} trial{'s' * (reseeded != 1)}"
    return [f"{made} came from another seed than sweep.seed gives now (--rerun stale runs them again)"]


def _open_files(session: Session, spec: SweepSpec, project: str) -> None:
    if spec.storage:
        uid = session.manifest.uid
        open_files_folder(files_folder(session.folder, spec.storage, project, uid), uid)


def _zygote_spec(spec: SweepSpec, code: Code, project: Path, gpus: Sequence[str]) -> ZygoteSpec:
    """What the zygotes of this sweep's trials have in common."""
    deterministic = spec.deterministic != "off"
    imports = import_path(code.path)
    env = tuple(_variables(spec).items())
    return ZygoteSpec(trainer.parse(spec.trainer), imports, str(project), len(gpus), spec.start, deterministic, env)


def _variables(spec: SweepSpec) -> dict[str, str]:
    """The variables of this process that trials get."""
    return {name: os.environ[name] for name in spec.env if name in os.environ}


def reopen(
    session: Session,
    trials: Sequence[str],
    settings: Mapping[str, Any],
    start_executor: Callable[[], Executor],
    here: Claim | None = None,
    *,
    wait: bool = True,
) -> int:
    """Go on with the plan as it was written, except for these settings, and run these trials again; returns how many.

    Fills session.plan, and session.launch where a trial waits. `here`: see `plan_sweep`.
    """
    manifest = session.manifest
    with manifest.transaction():
        manifest.attempts.recover(session.now())
        plan = manifest.plans.current()
        if plan is None:
            raise ManifestError(
                "nothing was planned here yet", where=str(session.folder.path), fix="orchestrate sweep FILE plans it"
            )
        check_copy(session.folder.code / str(plan.provenance.get("tree", "")))
        _open_files(session, plan.spec, plan.cwd)
        session.first, spec = resubmission.apply(manifest, None, plan.spec, trials, settings)
        session.plan = replace(plan, spec=spec)
        if session.first:
            sizes = manifest.trials.waiting_resources(session.plan.plan, None, session.first)
            _prepare(session, Launch(start_executor, sizes, here), wait)
    return len(session.first)


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
        env=_variables(session.plan.spec),
        now=session.now,
    )
    watch = session.watch or CopyWatch(_tree(session))

    def after_tick(transitions: list[Transition]) -> None:
        if any(not transition.state.open for transition in transitions):
            for text in watch.news(last=coordinator.done):
                coordinator.note(text)
        each(coordinator, transitions)

    with _interruptible(session, coordinator.request_stop, coordinator.request_kill):
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
def _interruptible(session: Session, stop: Callable[[], None], kill: Callable[[], None]) -> Iterator[None]:
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
