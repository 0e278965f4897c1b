"""What an attempt prints, up to a cap. It is read without ever making the trial wait."""

from __future__ import annotations

import os

_READ = 2**16


class Output:
    """A pipe for both stdout and stderr of a trial, so that their lines keep their order."""

    def __init__(self, cap: int) -> None:
        self._left, self._cap = cap, cap
        self._kept = bytearray()
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)

    @property
    def write_fd(self) -> int:
        """The end that the trial writes to."""
        return self._write_fd

    @property
    def size(self) -> int:
        """How many bytes `take` would return."""
        return len(self._kept)

    def read(self) -> bool:
        """Read once; False if there was nothing to read, or all writers have closed the pipe."""
        try:
            data = os.read(self.fd, _READ)
        except BlockingIOError:
            return False
        if len(data) <= self._left:
            self._kept += data
            self._left -= len(data)
        elif self._left >= 0:
            self._kept += data[: self._left]
            self._left = -1  # later output is read and dropped
            cap = f"{self._cap / 2**20:.3g} MiB" if self._cap >= 2**20 else f"{self._cap} bytes"
            self._kept += f"\n[orchestrate: cut here, at the cap of {cap}; later output is not kept]\n".encode()
        return bool(data)

    def drain(self) -> None:
        """Read all there is."""
        while self.read():
            pass

    def take(self) -> bytes:
        """The output since the last call, as far as it is kept."""
        data = bytes(self._kept)
        self._kept.clear()
        return data

    def close_write_end(self) -> None:
        """Close our copy of the write end once the trial has its own: then the pipe ends when the trial does."""
        if self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd = -1

    def close(self) -> None:
        """Close both ends."""
        self.close_write_end()
        os.close(self.fd)
