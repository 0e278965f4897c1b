"""`orchestrate sweep`: plan, run what is missing, say how it ended."""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator import naming
from orchestrator.cli import streams, view
from orchestrator.cli.closing import print_closing
from orchestrator.cli.common import Parser, positive, sweep_command
from orchestrator.cli.main import INTERRUPTED
from orchestrator.cli.sync import dropped
from orchestrator.coordinator.gpu_wait import await_gpus
from orchestrator.coordinator.loop import Coordinator, Transition
from orchestrator.coordinator.opening import plan_sweep
from orchestrator.coordinator.session import RunLimits, Session, drive, start_tracking
from orchestrator.executors import interrupts
from orchestrator.executors.gpus import Claim, claim
from orchestrator.folder.paths import SweepFolder, runs_root
from orchestrator.interpreter import command
from orchestrator.manifest.reader import Reader
from orchestrator.model.sweep import State
from orchestrator.ports import Executor
from orchestrator.results.snapshot import read_snapshot

DETACHED = "ORCHESTRATE_DETACHED"


def parser() -> Parser:
    options = Parser(
        "sweep",
        "FILE [KEY=VALUE …] [options]",
        "Run the trials of a sweep that are missing. Run it again after an interruption, a crash or an edit:\n"
        "what is done stays done, only the difference runs.",
        [
            "sweep conf/sweep.yaml",
            "sweep conf/sweep.yaml optimizer=adam optimizer.lr=0.1,0.01",
            "sweep conf/config.yaml sweep=lr --limit 2        # the section is conf/sweep/lr.yaml",
            "sweep conf/sweep.yaml --rerun failed --detach",
        ],
    )
    options.add_argument(
        "file", type=Path, metavar="FILE", help="the sweep file: a Hydra config with a `sweep` section"
    )
    options.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="Hydra overrides; key=a,b replaces an axis"
    )
    options.add_argument("--config-dir", type=Path, metavar="DIR", help="where group folders stand (default: by FILE)")
    options.add_argument("--rerun", choices=["stale", "failed", "all"], help="run these ended trials again")
    options.add_argument("--add", action="store_true", help="keep the trials of the last plan in the plan")
    options.add_argument("--limit", type=positive, metavar="N", help="only the first N trials that wait")
    options.add_argument("-d", "--detach", action="store_true", help="go on in the background, without this terminal")
    add_run_options(options)
    return options


def add_run_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("--address", metavar="ADDRESS", help="join this Ray cluster (else $RAY_ADDRESS, or our own)")
    options.add_argument("-j", "--max-concurrent", type=positive, metavar="N", help="trials at once, at most")
    options.add_argument("--no-wait", action="store_true", help="end with an error where others use the GPUs")


def run_options(options: argparse.Namespace) -> list[str]:
    """The options of this run that the command has again when it goes on; those of the plan are kept with it."""
    given = [("--address", options.address), ("--max-concurrent", options.max_concurrent)]
    words = [word for name, value in given if value is not None for word in (name, str(value))]
    return [*words, *(["--no-wait"] if options.no_wait else [])]


def run(words: Sequence[str]) -> int:
    options = parser().read(words)
    parent = detached_from()
    if options.detach and parent is None:
        return detach(words)
    from orchestrator.executors.ray import environment
    from orchestrator.language import planning

    address = environment.prepare(options.address)
    plan = planning.load(options.file, options.overrides, options.config_dir)
    root = runs_root(options.runs)
    limits = RunLimits(options.max_concurrent, options.limit, not options.no_wait, options.add)
    starts, here = executor_at(address)
    session = plan_sweep(root, plan, Path.cwd(), options.rerun, limits, starts, here)
    try:
        for warning in (*plan.summary().warnings, *session.notes):
            print(f"note: {warning}")
        print(headline(session.folder, options.limit), flush=True)
        if parent is not None:
            leave_terminal(session.folder, parent)
        return conduct(session, limits, run_options(options))
    finally:
        session.release()


def executor_at(address: str | None) -> tuple[Callable[[], Executor], Claim | None]:
    """What starts the executor, and its GPUs on this machine; None where a cluster is joined.

    `address` is what `environment.prepare` gave.
    """
    gpus = Claim() if address else claim()
    return functools.partial(start_executor, address, gpus), None if address else gpus


def start_executor(address: str | None, gpus: Claim) -> Executor:
    """Ray, embedded or joined; says which GPUs it leaves alone. `address` is what `environment.prepare` gave."""
    executor: Executor | None = None
    if view.is_terminal():
        print("starting Ray …", end="\r", flush=True)
    try:
        with interrupts.held("interrupted: ends as soon as Ray has started (Ctrl-C again: at once)"):
            from orchestrator.executors.ray.executor import RayExecutor

            executor = RayExecutor(address, gpus)
    except KeyboardInterrupt:
        if executor is not None:
            executor.close()
        raise
    finally:
        if view.is_terminal():
            print(" " * 14, end="\r", flush=True)
    if gpus.left_out:
        print(f"leaving alone {', '.join(gpus.left_out)}")
    return executor


def headline(folder: SweepFolder, limit: int | None = None) -> str:
    """ "address-tagging: 24 trials: 20 succeeded, 1 failed (orchestrate resubmit), 3 to run"."""
    with Reader(folder) as reader:
        progress, plan = reader.progress(), reader.plan()
    counts, stale = progress.counts, progress.stale
    parts = []
    for state in (State.SUCCEEDED, State.STOPPED, State.FAILED, State.LOST):
        if counts.get(state):
            parts.append(f"{counts[state]} {state.word}")
            if state is State.SUCCEEDED and stale:
                parts[-1] += f", {stale} of them stale (--rerun stale)"
            if state in (State.FAILED, State.LOST):
                parts[-1] += f" (orchestrate resubmit {folder.argument})"
    waiting = counts.get(State.PENDING, 0)
    limited = limit is not None and limit < waiting
    parts.append(f"{waiting} to run" + (f", {limit} of them now (--limit {limit})" if limited else ""))
    total = plan.total if plan and plan.total is not None else sum(counts.values())
    return f"{folder.name}: {naming.count(total, 'trial')}: {', '.join(parts)}"


def conduct(session: Session, limits: RunLimits, options: Sequence[str] = ()) -> int:
    """Run what waits, show it, and end in order; the exit code. `options`: of the command that goes on with it."""
    folder, began = session.folder, time.monotonic()
    if session.launch is not None:
        finish_tracking = start_tracking(session)
        if await_gpus(session, lambda line: print(line, flush=True)):
            (show_live if view.is_terminal() else show_plain)(session, limits)
        session.release()
        for tracker in finish_tracking():
            print(f"{tracker} has not received everything yet: orchestrate sync {folder.argument} sends the rest")
        for line in dropped(folder):
            print(f"note: {line}")
    with Reader(folder) as reader:
        snap = read_snapshot(folder, reader)
    assert session.plan is not None
    again, ran = sweep_command(session.plan, folder, *options), session.executor is not None
    print_closing(snap, session, again, time.monotonic() - began if ran else None, live=ran and view.is_terminal())
    if session.interrupted:
        return INTERRUPTED
    return 1 if session.ended_early and snap.counts.get(State.PENDING) else snap.exit_code


def show_live(session: Session, limits: RunLimits) -> None:
    with view.LiveView(session.folder) as live:

        def each(coordinator: Coordinator, _: list[Transition]) -> None:
            live.notes = list(coordinator.warnings)
            if coordinator.stopping:
                live.notes.append("stopping: running trials are asked to end; Ctrl-C again ends them at once")
            elif verdict := coordinator.early_abort.verdict:
                live.notes.append(f"{verdict.reason}; no more are started")

        drive(session, limits, each)
        live.notes = [note for note in live.notes if not note.startswith("stopping: ")]


def show_plain(session: Session, limits: RunLimits) -> None:
    with Reader(session.folder) as reader:
        snap = read_snapshot(session.folder, reader)
    plain = view.PlainView(snap.total, snap.finished, lambda line: print(line, flush=True))
    noted = 0

    def each(coordinator: Coordinator, transitions: list[Transition]) -> None:
        nonlocal noted
        plain.show(transitions)
        for note in coordinator.warnings[noted:]:
            print(f"note: {note}", flush=True)
        noted = len(coordinator.warnings)

    drive(session, limits, each)


# ---------------------------------------------------------------- in the background


def detach(words: Sequence[str]) -> int:
    """Start the same command in a session of its own; wait until its plan is durable, or it has failed."""
    ready, theirs = os.pipe()
    process = subprocess.Popen(
        command("orchestrator.cli.main", "main", "sweep", *words),
        stdin=subprocess.DEVNULL,
        env={**os.environ, DETACHED: str(theirs)},
        pass_fds=[theirs],
        start_new_session=True,
    )
    os.close(theirs)
    with os.fdopen(ready, encoding="utf-8") as pipe:
        name = pipe.read()
    if not name:
        return process.wait()
    print(f"running in the background: orchestrate status {name} --watch shows it, orchestrate stop {name} ends it")
    return 0


def detached_from() -> int | None:
    """The pipe to the process that started this one in the background. Nothing that is started here inherits it."""
    pipe = os.environ.pop(DETACHED, None)
    if pipe is None:
        return None
    os.set_inheritable(int(pipe), False)
    return int(pipe)


def leave_terminal(folder: SweepFolder, parent: int) -> None:
    """From now on print to the sweep's log, and let the parent go. `parent`: see `detached_from`."""
    log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    streams.drain()
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.write(parent, folder.argument.encode())
    os.close(parent)
