"""A tracker's process. Its arguments: SWEEP_FOLDER TRACKER follow | sync [TRIAL …].

It stands between the manifest and the tracker, in a session of its own: an outage does not reach the sweep, nor Ctrl-C
the delivery.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from orchestrator.errors import LockedError, ManifestError, OrchestratorError
from orchestrator.folder.lock import Holder, Lock, holder_of
from orchestrator.folder.paths import SweepFolder
from orchestrator.interpreter import command
from orchestrator.manifest.reader import Reader
from orchestrator.ports import TrackedSweep, Tracker
from orchestrator.tracking.follower import Follower
from orchestrator.tracking.goals import run_id, stand_in
from orchestrator.tracking.ledger import Ledger, take_over
from orchestrator.tracking.trackers import ONLY_ONE_OF_0_1, TRACKERS, wanted

_PAUSE = 0.2  # seconds between two looks at the manifest
_PATIENCE = 60.0  # seconds that a tracker whose coordinator has ended goes on trying; then `sync` is left


def follow(folder: SweepFolder, name: str) -> bool:
    """Follow one sweep until nobody holds it and everything is delivered. Whether it was."""
    os.nice(max(0, 5 - os.nice(0)))  # trials matter more
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    coordinator = holder_of(folder)
    with _locked(folder, name, wait=True):
        tracker = _tracker(folder, name)
        if tracker is None:
            return True
        _note(f"following, {tracker.destination}")
        ledger = Ledger(folder.tracker_ledger(name), tracker.destination)
        follower = Follower(folder, ledger, tracker, live=tracker.live)
        done = _follow(follower, tracker, folder, coordinator)
        _note(f"{follower.sent} runs delivered" + ("" if done else f"; gave up: {follower.trouble or 'replaced'}"))
        if done:
            tracker.close()
        return done and not follower.refused


def _follow(follower: Follower, tracker: Tracker, folder: SweepFolder, mine: Holder | None) -> bool:
    """Whether everything was delivered. Another coordinator starts a tracker of its own, which goes on from here."""
    trouble, orphaned = None, None
    while True:
        now = holder_of(folder)
        held = now is not None and (now == mine or not now.pid)  # no pid: it has not yet written who it is
        if now is not None and not held:
            return False
        if _tick(follower, held) and not held:
            return True
        if tracker.dead:
            raise _BeginAnew
        if follower.trouble is not trouble:
            trouble = follower.trouble
            _note(str(trouble))
        orphaned = None if held else orphaned or time.monotonic()
        if orphaned and follower.failures and time.monotonic() - orphaned > _PATIENCE:
            return False
        time.sleep(0 if follower.more else _PAUSE)


def _tick(follower: Follower, held: bool) -> bool:
    """A manifest that cannot be read just now, on a network disk say, can be read a little later."""
    for patience in range(20, -1, -1):
        try:
            return follower.tick(held)
        except ManifestError as error:
            if not patience:
                raise
            _note(str(error))
            time.sleep(1)
    raise AssertionError


class _BeginAnew(Exception):
    """The tracker does not work any more in this process. All that we know is on disk, so a fresh one can go on."""


def sync(folder: SweepFolder, name: str, force: Sequence[str] = ()) -> int:
    """Send whatever is over and has not arrived; how many runs that was.

    `force`: trials of which the whole series is sent, as a new run that supersedes what is there.
    """
    with _locked(folder, name, wait=False):
        tracker = _tracker(folder, name, sync=True)
        if tracker is None:
            return 0
        ledger = Ledger(folder.tracker_ledger(name), tracker.destination)
        _replace(folder, ledger, force)
        replacing = ledger.replacing()
        follower = Follower(folder, ledger, tracker, live=False, again=[trial for trial, _, _ in replacing])
        told = time.monotonic()
        while not follower.tick(holder_of(folder) is not None) and (follower.more or follower.left):
            if follower.trouble and (follower.failures or not follower.sent):
                raise follower.trouble
            if time.monotonic() - told > 5:
                told = time.monotonic()
                _tell(say=f"{follower.sent} sent, {follower.left} to go")
            time.sleep(0 if follower.more else 0.05)
        for trial, run, stand_in in replacing:
            if ledger.version(stand_in):
                follower.supersede(trial, run)
                ledger.told(run)
        tracker.close()
        if follower.refused and follower.trouble:
            _tell(say=f"{follower.sent} sent, {follower.refused} refused")
            raise follower.trouble
        return follower.sent


def _replace(folder: SweepFolder, ledger: Ledger, trials: Sequence[str]) -> None:
    """Note that other runs are to be sent in the place of those that these trials have; some may have none yet."""
    with Reader(folder) as reader:
        for trial in trials:
            attempts = reader.attempts(trial)
            run = ledger.current(run_id(reader.uid, trial, attempts[-1].lineage)) if attempts else ""
            if run and ledger.version(run) is not None:
                ledger.replace(run, trial, stand_in(run))


def _tracker(folder: SweepFolder, name: str, sync: bool = False) -> Tracker | None:
    """The tracker as the sweep wants it, or None if it is turned off. Its library is imported here and nowhere else."""
    with Reader(folder) as reader:
        plan = reader.plan()
    kind, options = TRACKERS[name], wanted(plan.spec).get(name) if plan else None
    if plan is None or options is None or (kind.turned_off(options) and not sync):
        return None
    module, _, made_by = kind.target.partition(":")
    sweep = TrackedSweep(folder.name, folder.path, Path(plan.cwd), options, sync)
    tracker: Tracker = getattr(importlib.import_module(module), made_by)(sweep)
    return tracker


@contextlib.contextmanager
def _locked(folder: SweepFolder, name: str, wait: bool) -> Iterator[None]:
    """Be the only process that delivers to this tracker. The lock goes with the process, however that ends."""
    folder.tracking.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_held(folder.tracker_lock(name), wait))
            if name == ONLY_ONE_OF_0_1 and (folder.tracker_lock_0_1.exists() or folder.ledger_0_1.exists()):
                # A tracker of version 0.1 may be at work, or be started later: its lock is held too, and stays.
                stack.enter_context(_held(folder.tracker_lock_0_1, wait))
                take_over(folder.ledger_0_1, folder.tracker_ledger(name))
        except BlockingIOError as error:
            raise LockedError(
                "the sweep's tracker is at work: it delivers by itself",
                where=str(folder.path),
                fix=f"wait until the sweep is done; {folder.tracker_log(name)} says what it does",
            ) from error
        yield


@contextlib.contextmanager
def _held(path: Path, wait: bool) -> Iterator[None]:
    """Hold a lock file. Raises BlockingIOError if another process holds it and `wait` is false."""
    lock = Lock(path)
    lock.seize(wait, _note)
    try:
        yield
    finally:
        lock.release()


def _note(text: str) -> None:
    """Into the tracker's log, which our error output is."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
    sys.stderr.flush()


def _tell(**message: Any) -> None:
    """To `control.sync`, which reads our output."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def _own_temporary_files() -> Iterator[None]:
    """Temporary files go into a folder that is removed at the end: trackers' libraries leave some behind."""
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="orchestrate-", ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while they are removed
            tempfile.tempdir = None
            os.environ.pop("TMPDIR")
            os.environ.update({"TMPDIR": before} if before is not None else {})


def main() -> NoReturn:
    """Do what the command line says, and exit.

    Without exit handlers: those of a tracker's library may wait for a server that is down, and end runs that go on.
    """
    os._exit(_main(sys.argv[1:]))


def _main(words: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with _own_temporary_files():
            return _run(SweepFolder(Path(words[0])), words[1], words[2], words[3:])
    except SystemExit:  # asked to end; it keeps nothing that the manifest does not hold
        return 1
    except _BeginAnew:
        _note("the tracker does not work any more in this process; starting anew")
        time.sleep(1)
        os.execv(sys.executable, command(__name__, "main", *words))


def _run(folder: SweepFolder, name: str, job: str, force: Sequence[str]) -> int:
    try:
        if job == "follow":
            return 0 if follow(folder, name) else 1
        _tell(sent=sync(folder, name, force))
        return 0
    except OrchestratorError as error:
        _note(str(error))
        if job == "sync":
            _tell(error={"what": error.what, "where": error.where, "fix": error.fix})
        return 1
    except (SystemExit, _BeginAnew):
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
