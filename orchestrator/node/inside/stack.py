"""Find out where a trial is that has to end: a signal makes it write its threads' stacks, which become a traceback.

The signal handler is C code, which writes the stacks itself: this also works while a library keeps the interpreter.
"""

from __future__ import annotations

import faulthandler
import linecache
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.node.inside.failure import is_internal, name_below

SIGNAL = signal.SIGRTMAX - 4  # a real-time signal that no library is known to use
_MAX_TEXT = 20_000  # characters; of a longer text the end is kept, where the main thread is
_THREAD = re.compile(r"(Current thread|Thread) (0x[0-9a-f]+)(?: \[(.*)\])? \(most recent call first\):")
_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')


def install_handler(fd: int) -> None:
    """In the trial: write the stacks of all threads to `fd` at each `SIGNAL`. The trial goes on undisturbed."""
    faulthandler.register(SIGNAL, file=fd, all_threads=True)


def has_handler(pid: int) -> bool:
    """Whether the process handles `SIGNAL`; one that does not would be killed by it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
    return caught is not None and bool(int(caught.group(1), 16) >> (SIGNAL - 1) & 1)


@dataclass
class _Thread:
    main: bool  # the thread that ran the signal handler
    name: str
    frames: list[tuple[str, int, str]] = field(default_factory=list)  # file, line, function; innermost last


def format_stacks(dump: str, roots: Sequence[str]) -> tuple[str, str]:
    """The stacks that a trial wrote, as text, and the main thread's innermost frame below `roots`.

    Internal frames are left out; the main thread comes last.
    """
    threads = [thread for thread in _threads(dump) if thread.frames]
    threads.sort(key=lambda thread: thread.main)
    text = "".join(map(_text, threads))
    if len(text) > _MAX_TEXT:
        text = f"... {len(text) - _MAX_TEXT} characters left out ...\n{text[-_MAX_TEXT:]}"
    return text, _user_frame(threads[-1], roots) if threads and threads[-1].main else ""


def _threads(dump: str) -> list[_Thread]:
    found: list[_Thread] = []
    for line in dump.splitlines():
        head, frame = _THREAD.fullmatch(line), _FRAME.fullmatch(line)
        if head:
            found.append(_Thread(head[1] != "Thread", head[3] or head[2]))
        elif frame and found and not is_internal(_unescape(frame[1])):
            found[-1].frames.insert(0, (_unescape(frame[1]), int(frame[2]), frame[3]))
    return found


def _unescape(name: str) -> str:
    r"""A file's name as it is: the handler writes characters beyond ASCII as `\xe9` or `\u20ac`."""
    return re.sub(r"\\(?:x(..)|u(....)|U(.{8}))", lambda found: chr(int(found[found.lastindex or 0], 16)), name)


def _text(thread: _Thread) -> str:
    head = "" if thread.main else f" of thread {thread.name}"
    lines = [f"Stack{head} (most recent call last):"]
    for file, line, function in thread.frames:
        lines.append(f'  File "{file}", line {line}, in {function}')
        source = linecache.getline(file, line).strip()
        lines += [f"    {source}"] if source else []
    return "\n".join(lines) + "\n"


def _user_frame(thread: _Thread, roots: Sequence[str]) -> str:
    for file, line, _ in reversed(thread.frames):
        name = name_below(file, tuple(roots))
        if name:
            return f"{name}:{line}"
    file, line, _ = thread.frames[-1]
    return f"{os.path.basename(file)}:{line}"
