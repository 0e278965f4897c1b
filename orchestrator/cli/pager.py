"""What is longer than the screen goes through the pager, as in git: `$PAGER`, else `less`; on a terminal only."""

from __future__ import annotations

import functools
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

_USUAL = {"LESS": "FRX", "LV": "-c"}  # git's: a text that fits the screen is printed as if there were no pager


class _Pipe(io.TextIOWrapper):
    """The way to the pager, and so to a terminal."""

    def isatty(self) -> bool:
        return True


def in_pager() -> bool:
    """Whether output goes through the pager now."""
    return isinstance(sys.stdout, _Pipe)


def command() -> str | None:
    """The command line of the pager; None if output goes straight to where it is read."""
    wanted = os.environ.get("PAGER", "less").strip()
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    if not sys.stdout.isatty() or dumb or wanted in ("", "cat") or in_pager():
        return None
    return wanted if shutil.which(wanted.split()[0]) else None


@contextmanager
def paged() -> Iterator[None]:
    """What is printed meanwhile goes through the pager. Whoever leaves the pager early ends the output."""
    pager = command()
    if pager is None:
        yield
        return
    terminal = sys.stdout
    terminal.flush()
    process = subprocess.Popen(pager, shell=True, stdin=subprocess.PIPE, env={**_USUAL, **os.environ})
    assert process.stdin is not None
    sys.stdout = pipe = _Pipe(process.stdin, encoding="utf-8", errors="backslashreplace")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pager's: it leaves a search, say
    try:
        with suppress(BrokenPipeError):
            yield
    finally:
        sys.stdout = terminal
        with suppress(BrokenPipeError):
            pipe.close()
        process.wait()
        signal.signal(signal.SIGINT, before)


def through_pager(run: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str]], int]:
    """A command whose output goes through the pager."""

    @functools.wraps(run)
    def paging(words: Sequence[str]) -> int:
        code = 0
        with paged():
            code = run(words)
            sys.stdout.flush()
        return code

    return paging
