"""What an attempt prints: both ends of it, if it is more than a cap. It is read without ever making the trial wait."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable

from orchestrator.text import VisibleLines

_READ = 2**16
_GLIMPSE = 10.0  # seconds after which the state of a progress bar is shown, while it goes on


class Output:
    """A pipe for both stdout and stderr of a trial, so that their lines keep their order.

    The first half of the cap is passed on as it comes. Of what follows, the last half of the cap is kept here, and is
    passed on at the end: that is where an error is told.
    """

    def __init__(self, cap: int, now: Callable[[], float] = time.monotonic) -> None:
        self._half, self._now = cap // 2, now
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        self._begin()

    def _begin(self) -> None:
        self._left = self._half  # bytes that are still passed on at once
        self._lines = VisibleLines()
        self._ready = bytearray()
        self._last: deque[bytes] = deque()
        self._last_size = self._dropped = 0  # bytes
        self._glimpse_due = self._now() + _GLIMPSE

    @property
    def write_fd(self) -> int:
        """The end that the trial writes to."""
        return self._write_fd

    @property
    def size(self) -> int:
        """How many bytes `take` would return, at least."""
        return len(self._ready)

    def read(self) -> bool:
        """Read once; False if there was nothing to read, or all writers have closed the pipe."""
        try:
            data = os.read(self.fd, _READ)
        except BlockingIOError:
            return False
        self._keep(self._lines.add(data))
        return bool(data)

    def forget(self) -> None:
        """Drop what has been printed and not been taken: it will be printed again."""
        while self.read():
            pass
        self._begin()

    def take(self) -> bytes:
        """The output since the last call, as far as it is passed on by now."""
        if not self._lines.changing or self._now() >= self._glimpse_due:
            self._glimpse_due = self._now() + _GLIMPSE
            self._keep(self._lines.rest())
        data = bytes(self._ready)
        self._ready.clear()
        return data

    def finish(self) -> bytes:
        """All the rest; call it when nobody writes any more."""
        while self.read():
            pass
        self._keep(self._lines.rest())
        last = b"".join(self._last)
        if self._dropped or self._last_size > self._half:
            last = last[-self._half :]
            last = last[last.find(b"\n") + 1 :]  # a line without its beginning would mislead
            self._dropped += self._last_size - len(last)
            last = f"[orchestrate: {self._dropped} bytes of output are left out here]\n".encode() + last
        self._last.clear()
        return self.take() + last

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        if len(data) <= self._left:
            self._ready += data
            self._left -= len(data)
            return
        if self._left >= 0:
            end = data.rfind(b"\n", 0, self._left) + 1 or self._left
            self._ready += data[:end]
            newline = "" if data[:end].endswith(b"\n") else "\n"
            told = f"{newline}[orchestrate: of what follows, the last {_size(self._half)} come when the attempt ends]\n"
            self._ready += told.encode()
            data, self._left = data[end:], -1
        self._last.append(data)
        self._last_size += len(data)
        while self._last_size - len(self._last[0]) > self._half:
            dropped = len(self._last.popleft())
            self._dropped += dropped
            self._last_size -= dropped

    def close_write_end(self) -> None:
        """Close our copy of the write end once the trial has its own: then the pipe ends when the trial does."""
        if self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd = -1

    def close(self) -> None:
        """Close both ends."""
        self.close_write_end()
        os.close(self.fd)


def _size(size: int) -> str:
    return f"{size / 2**20:.3g} MiB" if size >= 2**20 else f"{size} bytes"
