"""What an attempt prints, up to a cap, read without ever letting the trial wait."""

from __future__ import annotations

import os

_READ = 2**16


class Output:
    """A pipe that both stdout and stderr of a trial go to, so that their lines keep their order."""

    def __init__(self, cap: int) -> None:
        self._left, self._cap = cap, cap
        self._kept = bytearray()
        self.fd, self._theirs = os.pipe()
        os.set_blocking(self.fd, False)

    @property
    def theirs(self) -> int:
        """The end that the trial writes to."""
        return self._theirs

    @property
    def size(self) -> int:
        """Bytes that `take` would give."""
        return len(self._kept)

    def read(self) -> bool:
        """Read once; False when there is nothing now (or ever again)."""
        try:
            data = os.read(self.fd, _READ)
        except BlockingIOError:
            return False
        if len(data) <= self._left:
            self._kept += data
            self._left -= len(data)
        elif self._left >= 0:
            self._kept += data[: self._left]
            self._left = -1  # what follows is read and dropped
            cap = f"{self._cap / 2**20:.3g} MiB" if self._cap >= 2**20 else f"{self._cap} bytes"
            self._kept += f"\n[orchestrate: cut here, at the cap of {cap}; later output is not kept]\n".encode()
        return bool(data)

    def drain(self) -> None:
        """Read all there is."""
        while self.read():
            pass

    def take(self) -> bytes:
        """What has been kept since the last call."""
        data = bytes(self._kept)
        self._kept.clear()
        return data

    def given(self) -> None:
        """The trial has its end: close ours, so that its death ends the pipe."""
        if self._theirs >= 0:
            os.close(self._theirs)
            self._theirs = -1

    def close(self) -> None:
        """Close both ends."""
        self.given()
        os.close(self.fd)
