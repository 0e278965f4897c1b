"""Lets the start of an executor come to its end before Ctrl-C is heard."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held(text: str = "") -> Iterator[None]:
    """Raise KeyboardInterrupt at the end of the block, and not within it; at the second Ctrl-C at once.

    Ray's start is C++ code for the most part: an interrupt in the middle of it is lost, or ends the process by a
    segmentation fault. `text`: what to say at the first one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) > 1:
            raise KeyboardInterrupt
        if text:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    before = signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt
