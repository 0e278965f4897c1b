"""`orchestrate logs TRIAL`: the output of a trial."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from orchestrator import naming
from orchestrator.cli.common import TRIAL_HELP, Parser, find_trial, positive
from orchestrator.cli.pager import through_pager
from orchestrator.errors import NotFoundError
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.reader import Reader
from orchestrator.text import VisibleLines

_LONGEST = 10_000  # bytes of a line that is shown as one of the last
EXAMPLES = ("logs 6065", "logs last --follow", "logs best -n 20", "logs 6065 --attempt 1")
POLL = 0.2  # seconds between two reads of a growing log


def run(words: Sequence[str]) -> int:
    following = {"-f", "--follow"} & set(words)
    return _run(words) if following else through_pager(_run)(words)


def _run(words: Sequence[str]) -> int:
    parser = Parser("logs", "TRIAL [options]", "The output of a trial's last attempt.", EXAMPLES)
    parser.add_argument("trial", metavar="TRIAL", help=TRIAL_HELP)
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing while the trial runs")
    parser.add_argument("-n", "--lines", type=positive, metavar="N", help="only the last N lines")
    parser.add_argument("--attempt", type=positive, metavar="K", help="the output of attempt K")
    options = parser.read(words)
    folder, trial = find_trial(options.runs, options.trial)
    attempt = options.attempt or trial.attempts
    if not attempt:
        raise NotFoundError(
            "it has not run yet", where=f"trial {trial.trial_id}", fix="orchestrate status shows what runs"
        )
    if attempt > trial.attempts:
        raise NotFoundError(
            f"it has no attempt {attempt}: {naming.count(trial.attempts, 'attempt')} so far",
            where=f"trial {trial.trial_id}",
            fix="orchestrate show lists them",
        )
    path = folder.attempt_log(trial.trial_id, attempt)
    position = _print_last(path, options.lines) if options.lines else 0
    shown = VisibleLines()
    while options.follow and _running(folder, trial.trial_id, attempt):
        position = _print(path, position, shown)
        time.sleep(POLL)
    if options.follow or not options.lines:
        _print(path, position, shown)
    return 0


def _print_last(path: Path, count: int) -> int:
    """Print the last lines of the log. Returns how many bytes of the file have been read."""
    if not path.exists():
        return 0
    with open(path, "rb") as log:
        lines = b"".join(_shortened(line) for line in deque(map(_visible, log), maxlen=count))
        _write(lines)
        return log.tell()


def _visible(line: bytes) -> bytes:
    shown = VisibleLines()
    return shown.add(line) + shown.rest()


def _shortened(line: bytes) -> bytes:
    if len(line) <= _LONGEST:
        return line
    half, text = _LONGEST // 2, line.rstrip(b"\n")
    return text[:half] + f" ... {len(text) - 2 * half} bytes left out ... ".encode() + line[len(text) - half :]


def _print(path: Path, position: int, shown: VisibleLines) -> int:
    """Print the log from this position on, as a terminal would show it. Returns the next position."""
    if not path.exists():
        return position
    with open(path, "rb") as log:
        log.seek(position)
        for block in iter(lambda: log.read(1 << 16), b""):
            _write(shown.add(block))
        _write(shown.rest())
        return log.tell()


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _running(folder: SweepFolder, trial_id: str, attempt: int) -> bool:
    from orchestrator.folder.lock import holder_of

    with Reader(folder) as reader:
        rows = [row for row in reader.attempts(trial_id) if row.attempt == attempt]
    return bool(rows) and rows[0].state.open and holder_of(folder) is not None
