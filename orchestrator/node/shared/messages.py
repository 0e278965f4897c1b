"""Messages between a worker and its zygote: pickled dicts over SOCK_SEQPACKET, file descriptors beside them."""

from __future__ import annotations

import os
import pickle
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.text import shortened

MAX_MESSAGE = 2**16  # bytes
_MAX_TEXT = 4_000  # characters; of a few texts in one message
_CLEAN_UP = 5.0  # seconds; a zygote that takes longer is killed
_ANCILLARY_SPACE = socket.CMSG_SPACE(4 * struct.calcsize("i"))  # for at most 4 descriptors


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """The two connected ends of a new channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Send a message, with long texts shortened if it is too large as a whole.

    If the other side has closed the channel, nothing happens: `receive` reports that.
    """
    data = pickle.dumps(message)
    if len(data) > MAX_MESSAGE:
        data = pickle.dumps(_shortened(message))
    try:
        if fds:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))
            channel.sendmsg([data], [rights])
        else:
            channel.send(data)
    except OSError:
        pass


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}
    return shortened(value, _MAX_TEXT) if isinstance(value, str) else value


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, Sequence[int]]:
    """Wait for the next message and its descriptors; None if the other side has closed the channel."""
    try:
        data, ancillary, _, _ = channel.recvmsg(MAX_MESSAGE, _ANCILLARY_SPACE, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:  # it closed the channel before it read all of our messages; its last ones come now
        return receive(channel)
    except ConnectionError:
        return None, ()
    fds = struct.unpack(f"{len(ancillary[0][2]) // 4}i", ancillary[0][2]) if ancillary else ()
    return (pickle.loads(data) if data else None), fds


def end_politely(channel: socket.socket) -> bool:
    """Ask an idle zygote to end, so that it can clean up; returns whether it has ended, within `_CLEAN_UP` seconds."""
    send(channel, {"do": "end"})
    deadline = time.monotonic() + _CLEAN_UP
    while select.select([channel], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if receive(channel)[0] is None:
            return True
    return False


def read_file(fd: int) -> bytes:
    """The whole content of a file."""
    return os.pread(fd, os.fstat(fd).st_size, 0)
