"""Processes that end with whoever started them: on Ctrl-C, on SIGTERM, after a mistake."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = (20, 20)  # seconds after each SIGTERM: to an orchestrator the first is a wish, the second is an order


_starting = False  # a process is being started that nobody could end yet
_asked: int | None = None  # the signal that came meanwhile


def interruptible() -> None:
    """Ctrl-C, SIGTERM and a closed terminal unwind; a second one does not disturb the cleaning up."""

    def interrupt(number: int, _: object) -> None:
        global _asked
        for each in ENDINGS:
            signal.signal(each, signal.SIG_IGN)
        _asked = number
        if not _starting:
            raise SystemExit(128 + number)

    for number in ENDINGS:
        signal.signal(number, interrupt)


@contextmanager
def child(command: Sequence[str], **how: Any) -> Iterator[subprocess.Popen[str]]:
    """In a session of its own; nothing of its group is left when the block ends."""
    global _starting
    _starting = True
    process = subprocess.Popen(command, text=True, start_new_session=True, **how)
    try:
        _starting = False
        if _asked is not None:
            raise SystemExit(128 + _asked)
        yield process
    finally:
        for patience in PATIENCE:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def finished(command: Sequence[str], **how: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with its output captured."""
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how) as process:
        out, err = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out, err)


def output(command: Sequence[str], **how: Any) -> str:
    """What a command prints that must succeed; its errors are shown."""
    with child(command, stdout=subprocess.PIPE, **how) as process:
        out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode} of {' '.join(command)}")
    return out
