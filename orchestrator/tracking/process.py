"""The tracker's process: `python -m orchestrator.tracking.process SWEEP_FOLDER follow | sync`.

It stands between the manifest and W&B, in a session of its own, so that neither an outage nor Ctrl-C couples them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.errors import LockedError, ManifestError, OrchestratorError, TrackingError
from orchestrator.folder.lock import Holder, holder_of
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.reader import Reader
from orchestrator.tracking import control
from orchestrator.tracking.follower import Follower
from orchestrator.tracking.ledger import Ledger
from orchestrator.tracking.wandb import WandbTracker, turned_off

_PAUSE = 0.2  # seconds between two looks at the manifest
_PATIENCE = 60.0  # seconds that an orphaned tracker tries to reach W&B; then `sync` is left


def follow(folder: SweepFolder) -> bool:
    """Follow one sweep until nobody holds it and everything is delivered. Whether it was."""
    os.nice(max(0, 5 - os.nice(0)))  # trials matter more
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    coordinator = holder_of(folder)
    with _locked(folder, wait=True):
        settings = _settings(folder)
        if settings is None or turned_off(settings):
            return True
        tracker = WandbTracker(settings, folder.name, folder.path)
        _note(f"following, {'online' if tracker.live else 'offline'}")
        ledger = Ledger(folder, "online" if tracker.live else "offline", write=True)
        follower = Follower(folder, ledger, tracker, live=tracker.live)
        done = _follow(follower, tracker, folder, coordinator)
        _note(f"{follower.sent} runs delivered" + ("" if done else f"; gave up: {follower.trouble or 'replaced'}"))
        if done:
            tracker.close()
        return done and not follower.refused


def _follow(follower: Follower, tracker: WandbTracker, folder: SweepFolder, mine: Holder | None) -> bool:
    """Whether everything was delivered. Another coordinator brings a tracker of its own, which goes on from here."""
    trouble, orphaned = None, None
    while True:
        now = holder_of(folder)
        held = now is not None and (now == mine or not now.pid)  # no pid: it has not said yet who it is
        if now is not None and not held:
            return False
        if _tick(follower, held) and not held:
            return True
        if tracker.dead:
            _begin_anew()
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


def _begin_anew() -> None:
    """W&B's own process died. All we know is on disk: a fresh start of the same process knows how to go on."""
    _note("W&B's process died; starting anew")
    time.sleep(1)
    os.execv(sys.executable, [sys.executable, "-m", "orchestrator.tracking.process", *sys.argv[1:]])


def sync(folder: SweepFolder) -> int:
    """Send whatever is over and has not arrived; how many runs that was."""
    with _locked(folder, wait=False):
        tracker = WandbTracker(_settings(folder) or {}, folder.name, folder.path, online=True)
        if not tracker.live:
            raise TrackingError("not logged in to W&B", where=tracker.server, fix="wandb login, or set WANDB_API_KEY")
        follower = Follower(folder, Ledger(folder, "online", write=True), tracker, live=False)
        told = time.monotonic()
        while not follower.tick(holder_of(folder) is not None) and (follower.more or follower.left):
            if follower.trouble and (follower.failures or not follower.sent):
                raise follower.trouble
            if time.monotonic() - told > 5:
                told = time.monotonic()
                _tell(say=f"{follower.sent} sent, {follower.left} to go")
            time.sleep(0 if follower.more else 0.05)
        tracker.close()
        if follower.refused and follower.trouble:
            _tell(say=f"{follower.sent} sent, {follower.refused} refused")
            raise follower.trouble
        return follower.sent


def _settings(folder: SweepFolder) -> Any:
    with Reader(folder) as reader:
        plan = reader.plan()
    return control.options(plan.spec) if plan else None


@contextlib.contextmanager
def _locked(folder: SweepFolder, wait: bool) -> Iterator[None]:
    """Be the only one who delivers. It goes with its process, however that ends."""
    with open(folder.path / "tracker.lock", "a", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            raise LockedError(
                "the sweep's tracker is at work: it delivers by itself",
                where=str(folder.path),
                fix=f"wait until the sweep is done; {control.log(folder)} says what it does",
            ) from error
        yield


def _note(text: str) -> None:
    """Into the tracker's log, which our error output is."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
    sys.stderr.flush()


def _tell(**message: Any) -> None:
    """To `control.sync`, which reads our output."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main(words: list[str]) -> int:
    folder, job = SweepFolder(Path(words[0])), words[1]
    try:
        if job == "follow":
            return 0 if follow(folder) else 1
        _tell(sent=sync(folder))
        return 0
    except OrchestratorError as error:
        _note(str(error))
        if job == "sync":
            _tell(error={"what": error.what, "where": error.where, "fix": error.fix})
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1


if __name__ == "__main__":
    # Not by way of wandb's exit handlers: they wait for a server that is down, and finish runs that go on.
    os._exit(main(sys.argv[1:]))
