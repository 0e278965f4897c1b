"""What is said at the end of a run: how it ended, how long it took, where everything is, and what to do next."""

from __future__ import annotations

from orchestrator import naming
from orchestrator.cli import run_again, view
from orchestrator.cli.common import relative
from orchestrator.coordinator.session import Session
from orchestrator.model.sweep import State
from orchestrator.results.snapshot import Snapshot
from orchestrator.tracking import control


def print_closing(snap: Snapshot, session: Session, command: str, seconds: float | None, live: bool) -> None:
    """`command` goes on with the sweep. `seconds`: how long trials ran; None if there was nothing to run.

    The live view has already shown the first part.
    """
    if not live:
        print(f"{naming.count(snap.total, 'trial')}: {view.counts_text(snap.counts)}")
        for line in view.results(snap):
            print(line)
    _print_places(snap, session, seconds, live)
    _print_next(snap, session, command, live)


def _print_places(snap: Snapshot, session: Session, seconds: float | None, live: bool) -> None:
    took = "" if seconds is None else f"{naming.duration(round(seconds))} in all; "
    print(f"{took}results and logs are in {relative(session.folder.path)}")
    for tracker, address in {} if live else snap.addresses.items():
        print(f"{tracker}: {address}")
    for tracker, place in control.local_places(session.folder).items():
        print(f"{tracker}: {place}")


def _print_next(snap: Snapshot, session: Session, command: str, live: bool) -> None:
    if live and snap.failures:
        print(f"orchestrate show {snap.failures[0].example[:8]}   says why it failed")
    waiting = snap.counts.get(State.PENDING, 0)
    if session.ended_early and waiting and not session.interrupted:
        print(f"ended early: {session.ended_early.reason}; {waiting} not run")
        print(f"  → {session.ended_early.fix}")
        print(f"    {command}{' --rerun failed' * ('--rerun failed' in session.ended_early.fix)}")
        print("    (with sweep.stop_after_failures=0 the rest is run whatever happens)")
    elif session.interrupted:
        print("interrupted: the same command goes on from here:")
        print(f"  {command}")
    elif snap.exit_code:
        again = f"orchestrate resubmit {snap.name}"
        for line in run_again.hint(session.folder, session.plan, again, "the failed ones"):
            print(line)
    if snap.finished and not session.interrupted:
        if snap.best is not None:
            print(f"orchestrate show {snap.name}/best   shows the best one")
        sort = f" --sort {snap.objective.metric}" if snap.objective else ""
        print(f"orchestrate trials {snap.name}{sort}   compares them")
