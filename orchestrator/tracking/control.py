"""Tracking, as the rest of us calls it. Each tracker works in a process of its own: nothing waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import IO

from orchestrator.errors import OrchestratorError, TrackingError
from orchestrator.folder.paths import SweepFolder, unwritable
from orchestrator.interpreter import command
from orchestrator.manifest.reader import Reader
from orchestrator.model.sweep import SweepSpec
from orchestrator.tracking import ledger
from orchestrator.tracking.trackers import ONLY_ONE_OF_0_1, TRACKERS, wanted

Process = subprocess.Popen[bytes]
_GRACE = 2.0  # seconds from SIGTERM to SIGKILL


def start(folder: SweepFolder, spec: SweepSpec) -> dict[str, Process | None]:
    """Begin to follow a sweep whose plan is written and whose lock is held: the process of each of its trackers.

    None stands for a process that could not be started; the sweep goes on.
    """
    names = [name for name, options in wanted(spec).items() if not TRACKERS[name].turned_off(options)]
    return {name: _follow(folder, name) for name in names}


def finish(processes: Mapping[str, Process | None], wait: float = 30.0) -> list[str]:
    """Wait for the trackers of a sweep that was released; the titles of those that have not received everything."""
    deadline = time.monotonic() + wait
    return [TRACKERS[name].title for name, process in processes.items() if not _done(process, deadline)]


def addresses(folder: SweepFolder) -> dict[str, str]:
    """Where the sweep is shown, by the tracker's title, as far as that is known. Reads only."""
    found = {}
    for name, kind in TRACKERS.items():
        path = folder.tracker_ledger(name)
        if name == ONLY_ONE_OF_0_1 and not path.exists():
            path = folder.ledger_0_1
        if address := ledger.address(path):
            found[kind.title] = address
    return found


def local_places(folder: SweepFolder) -> dict[str, str]:
    """Where the sweep's runs are kept on this machine, by the tracker's title, for trackers without an address."""
    known, found = addresses(folder), {}
    for name, kind in TRACKERS.items():
        for destination in ledger.destinations(folder.tracker_ledger(name)) if kind.title not in known else ():
            sends = f"offline; orchestrate sync {folder.name} sends the runs once you are logged in"
            found[kind.title] = sends if destination == "offline" else destination
    return found


def synced(folder: SweepFolder) -> list[str]:
    """The names of the trackers that `sync` can send to. Raises OrchestratorError if there is none."""
    with Reader(folder) as reader:
        plan = reader.plan()
    names = list(wanted(plan.spec)) if plan else []
    if not names:
        raise OrchestratorError(
            "tracking is turned off for this sweep",
            where=str(folder.path),
            fix="set sweep.tracking in its file, run it again (nothing that is done runs twice), then sync",
        )
    return names


def sync(folder: SweepFolder, name: str, say: Callable[[str], None]) -> int:
    """Send to one tracker whatever has not arrived there, from the manifest; how many runs that was."""
    sent = 0
    try:
        process = _spawn(folder, name, "sync", stdout=subprocess.PIPE)
    except OSError as error:
        raise unwritable(folder, error) from error
    refused: TrackingError | None = None
    with process:
        try:
            for line in process.stdout or ():
                message = json.loads(line)
                if "error" in message:
                    refused = TrackingError(**message["error"])
                sent = message.get("sent", sent)
                if "say" in message:
                    say(message["say"])
            process.wait()
        finally:
            _end(process)
    if refused is not None:
        raise refused
    if process.returncode:
        where = str(folder.tracker_log(name))
        raise TrackingError("the tracker ended unexpectedly", where=where, fix="that file says why")
    return sent


def _follow(folder: SweepFolder, name: str) -> Process | None:
    try:
        return _spawn(folder, name, "follow", start_new_session=True)
    except OSError:
        return None


def _done(process: Process | None, deadline: float) -> bool:
    """Whether the tracker has delivered everything by then; it is ended if it has not."""
    if process is None:
        return False
    try:
        return process.wait(max(0.0, deadline - time.monotonic())) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        _end(process)


def _end(process: Process) -> None:
    """It keeps nothing that the manifest does not hold, and has a moment to remove its temporary files."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _spawn(
    folder: SweepFolder, name: str, job: str, stdout: int | IO[bytes] | None = None, start_new_session: bool = False
) -> Process:
    """The tracker's process; without `stdout` all that it prints goes to its log."""
    folder.tracking.mkdir(exist_ok=True)
    with open(folder.tracker_log(name), "ab") as log:
        return subprocess.Popen(
            command("orchestrator.tracking.process", "main", folder.path, name, job),
            stdin=subprocess.DEVNULL,
            stdout=log if stdout is None else stdout,
            stderr=log,
            env=os.environ | {"PYTHONSAFEPATH": "1"},  # for the interpreters that a tracker's library starts
            start_new_session=start_new_session,
        )
