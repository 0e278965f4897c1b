"""Where a trial is that has to be ended: its threads' stacks, asked for with a signal and told as a traceback.

The stack is written by C code inside the signal's handler, so it comes from a trial that hangs in a library too.
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

from orchestrator.node.inside.failure import below, hidden

SIGNAL = signal.SIGRTMAX - 4  # of the real-time signals one that nobody is known to use
_LONGEST = 20_000  # characters of all stacks; of more the end is kept, where the main thread is
_THREAD = re.compile(r"(Current thread|Thread) (0x[0-9a-f]+)(?: \[(.*)\])? \(most recent call first\):")
_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')


def answer_to_signal(fd: int) -> None:
    """In the trial: at each `SIGNAL` write the stacks of all threads there; the trial goes on undisturbed."""
    faulthandler.register(SIGNAL, file=fd, all_threads=True)


def answers(pid: int) -> bool:
    """Whether the process has a handler for `SIGNAL`; without one it would kill."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
    return caught is not None and bool(int(caught.group(1), 16) >> (SIGNAL - 1) & 1)


@dataclass
class _Thread:
    main: bool  # the one that the signal has reached
    name: str
    frames: list[tuple[str, int, str]] = field(default_factory=list)  # file, line, function; innermost last


def told(written: str, roots: Sequence[str]) -> tuple[str, str]:
    """The stacks without frames of ours, the main thread's last, and its innermost frame below `roots`."""
    threads = [thread for thread in _threads(written) if thread.frames]
    threads.sort(key=lambda thread: thread.main)
    text = "".join(map(_text, threads))
    if len(text) > _LONGEST:
        text = f"... {len(text) - _LONGEST} characters left out ...\n{text[-_LONGEST:]}"
    return text, _place(threads[-1], roots) if threads and threads[-1].main else ""


def _threads(written: str) -> list[_Thread]:
    found: list[_Thread] = []
    for line in written.splitlines():
        head, frame = _THREAD.fullmatch(line), _FRAME.fullmatch(line)
        if head:
            found.append(_Thread(head[1] != "Thread", head[3] or head[2]))
        elif frame and found and not hidden(_decoded(frame[1])):
            found[-1].frames.insert(0, (_decoded(frame[1]), int(frame[2]), frame[3]))
    return found


def _decoded(name: str) -> str:
    r"""The name of a file, in which everything beyond ASCII stands as `\xe9` or `\u20ac`."""
    return re.sub(r"\\(?:x(..)|u(....)|U(.{8}))", lambda found: chr(int(found[found.lastindex or 0], 16)), name)


def _text(thread: _Thread) -> str:
    head = "" if thread.main else f" of thread {thread.name}"
    lines = [f"Stack{head} (most recent call last):"]
    for file, line, function in thread.frames:
        lines.append(f'  File "{file}", line {line}, in {function}')
        source = linecache.getline(file, line).strip()
        lines += [f"    {source}"] if source else []
    return "\n".join(lines) + "\n"


def _place(thread: _Thread, roots: Sequence[str]) -> str:
    for file, line, _ in reversed(thread.frames):
        name = below(file, tuple(roots))
        if name:
            return f"{name}:{line}"
    file, line, _ = thread.frames[-1]
    return f"{os.path.basename(file)}:{line}"
