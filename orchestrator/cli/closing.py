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
        sends = f"; orchestrate sync {session.folder.argument} sends the runs once you are logged in"
        print(f"{tracker}: {place}{sends if place == 'offline' else ''}")


def _print_next(snap: Snapshot, session: Session, command: str, live: bool) -> None:
    if live and snap.failures:
        print(f"orchestrate show {snap.argument}/{snap.failures[0].example[:8]}   says why it failed")
    waiting = snap.counts.get(State.PENDING, 0)
    if session.ended_early and waiting and not session.interrupted:
        print(f"ended early: {session.ended_early.reason}; {waiting} not run")
        print(f"  → {session.ended_early.fix}")
        print(f"    {command}{' --rerun failed' * ('--rerun failed' in session.ended_early.fix)}")
        print("    (with sweep.stop_after_failures=0 the rest is run whatever happens)")
    elif session.interrupted:
        print("interrupted: the same command goes on from here:")
        print(f"  {command}")
    else:
        again = f"orchestrate resubmit {snap.argument}"
        for line in run_again.hint(session.folder, session.plan, again, "the failed ones") if snap.exit_code else ():
            print(line)
        if waiting:  # after --limit
            print(f"{waiting} still waiting; to run {'them' if waiting > 1 else 'it'}:")
            print(f"  {command}")
    if snap.finished and not session.interrupted:
        if snap.best is not None:
            print(f"orchestrate show {snap.argument}/best   shows the best one")
        best_first = ", the best first" if snap.objective else ""
        print(f"orchestrate trials {snap.argument}   compares them{best_first}")
