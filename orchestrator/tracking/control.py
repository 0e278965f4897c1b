"""Tracking, as the rest of us calls it. The work is done in `tracker`, a process of its own: nothing waits for it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from orchestrator.errors import OrchestratorError, TrackingError
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.reader import Reader
from orchestrator.model.sweep import SweepSpec
from orchestrator.tracking.goals import goals, run_id
from orchestrator.tracking.ledger import Ledger


def start(folder: SweepFolder, spec: SweepSpec) -> subprocess.Popen[bytes] | None:
    """Begin to follow a sweep whose plan is written and whose lock is held; None if tracking is off."""
    if options(spec) is None or os.environ.get("WANDB_MODE") == "disabled":
        return None
    try:
        with open(log(folder), "ab") as file:
            return _spawn(folder, "follow", stdout=file, start_new_session=True)
    except OSError:
        return None  # `undelivered` tells; the sweep goes on


def finish(process: subprocess.Popen[bytes] | None, wait: float = 30.0) -> bool:
    """Wait for the tracker of a sweep that was released; True if it has brought everything where it belongs."""
    if process is None:
        return True
    try:
        return process.wait(wait) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            process.kill()  # it keeps nothing that the manifest does not hold
            process.wait()


def address(folder: SweepFolder) -> str | None:
    """Where the sweep is shown; None offline, or as long as it is unknown."""
    with _ledger(folder) as ledger:
        return ledger.note("address") if ledger else None


def undelivered(folder: SweepFolder) -> int:
    """Trials that began and are not wholly in W&B; 0 where tracking is off."""
    with Reader(folder) as reader, _ledger(folder) as ledger:
        plan = reader.plan()
        if plan is None or options(plan.spec) is None:
            return 0
        changed, trials = ledger.cursor if ledger else 0, set()
        while page := reader.changed_attempts(changed):
            changed = page[-1].changed
            trials |= {attempt.trial_id for attempt in page}
        return sum(_missing(reader, ledger, trial_id) for trial_id in trials)


def sync(folder: SweepFolder, say: Callable[[str], None]) -> int:
    """Send to W&B whatever has not arrived there, from the manifest; how many runs that was."""
    with Reader(folder) as reader:
        plan = reader.plan()
    if plan is None or options(plan.spec) is None:
        raise OrchestratorError(
            "tracking is turned off for this sweep",
            where=str(folder.path),
            fix="set sweep.tracking.wandb in its file, run it again (nothing that is done runs twice), then sync",
        )
    sent = 0
    with _spawn(folder, "sync", stdout=subprocess.PIPE) as process:
        try:
            for line in process.stdout or ():
                message = json.loads(line)
                if "error" in message:
                    raise TrackingError(**message["error"])
                sent = message.get("sent", sent)
                if "say" in message:
                    say(message["say"])
        finally:
            process.kill()
    if process.returncode not in (0, -signal.SIGKILL):
        raise TrackingError("the tracker ended unexpectedly", where=str(log(folder)), fix="that file says why")
    return sent


def options(spec: SweepSpec) -> Mapping[str, Any] | None:
    """What the sweep says of W&B; None if it wants none of it. Said nothing, it is wanted."""
    wanted = spec.tracking.get("wandb", {})
    return None if wanted is False else wanted if isinstance(wanted, Mapping) else {}


def _missing(reader: Reader, ledger: Ledger | None, trial_id: str) -> bool:
    found = goals(reader.attempts(trial_id), held=False)
    return any(
        ledger is None or ledger.version(run_id(reader.uid, trial_id, goal.lineage)) != goal.version for goal in found
    )


@contextlib.contextmanager
def _ledger(folder: SweepFolder) -> Iterator[Ledger | None]:
    """The ledger of what is online, if there is one yet."""
    if not folder.tracker.is_file() or folder.tracker.stat().st_size == 0:
        yield None
        return
    with contextlib.closing(Ledger(folder, "online")) as ledger:
        yield ledger


def _spawn(
    folder: SweepFolder, job: str, stdout: int | IO[bytes], start_new_session: bool = False
) -> subprocess.Popen[bytes]:
    """The tracker's process; wandb is imported nowhere else."""
    with open(log(folder), "ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator.tracking.process", str(folder.path), job],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=file,
            env=os.environ | {"PYTHONSAFEPATH": "1"},  # the user's folder may hold modules of our dependencies' names
            start_new_session=start_new_session,
        )


def log(folder: SweepFolder) -> Path:
    """What the tracker has to say."""
    return folder.path / "tracking.log"
