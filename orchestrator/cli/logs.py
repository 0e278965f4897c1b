"""`orchestrate logs TRIAL`: the output of a trial."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence

from orchestrator.cli.common import Parser, find_trial, positive
from orchestrator.errors import NotFoundError
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.reader import Reader

POLL = 0.2  # seconds between two reads of a growing log


def run(words: Sequence[str]) -> int:
    parser = Parser("logs", "TRIAL [options]", "The output of a trial's last attempt.")
    parser.add_argument("trial", metavar="TRIAL", help="the first digits of its id, or SWEEP/ID")
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing while the trial runs")
    parser.add_argument("-n", "--lines", type=positive, metavar="N", help="only the last N lines")
    parser.add_argument("--attempt", type=positive, metavar="K", help="the output of attempt K")
    options = parser.read(words)
    folder, trial = find_trial(options.runs, options.trial)
    attempt = options.attempt or trial.attempts
    if not attempt:
        raise NotFoundError("it has not run yet", where=f"trial {trial.trial_id}")
    if attempt > trial.attempts:
        raise NotFoundError(f"it has no attempt {attempt}, only {trial.attempts}", where=f"trial {trial.trial_id}")
    position = _print(folder, trial.trial_id, attempt, options.lines)
    while options.follow and _running(folder, trial.trial_id, attempt):
        time.sleep(POLL)
        position = _print_from(folder, trial.trial_id, attempt, position)
    if options.follow:
        _print_from(folder, trial.trial_id, attempt, position)
    return 0


def _print(folder: SweepFolder, trial_id: str, attempt: int, lines: int | None) -> int:
    """Print the log or its last lines. Returns how many bytes of the file have been read."""
    path = folder.attempt_log(trial_id, attempt)
    if not path.exists():
        return 0
    with open(path, "rb") as log:
        if lines is None:
            for block in iter(lambda: log.read(1 << 16), b""):
                _write(block)
        else:
            _write(b"".join(deque(log, maxlen=lines)))
        return log.tell()


def _print_from(folder: SweepFolder, trial_id: str, attempt: int, position: int) -> int:
    path = folder.attempt_log(trial_id, attempt)
    if not path.exists():
        return position
    with open(path, "rb") as log:
        log.seek(position)
        _write(log.read())
        return log.tell()


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _running(folder: SweepFolder, trial_id: str, attempt: int) -> bool:
    from orchestrator.folder.lock import holder_of

    with Reader(folder) as reader:
        rows = [row for row in reader.attempts(trial_id) if row.attempt == attempt]
    return bool(rows) and rows[0].state.open and holder_of(folder) is not None
