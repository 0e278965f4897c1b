"""What a worker and its zygote say to each other over a socket of theirs: datagrams, file descriptors beside them."""

from __future__ import annotations

import os
import pickle
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST = 2**16  # bytes of a message
_SPACE = socket.CMSG_SPACE(4 * struct.calcsize("i"))


def send(channel: socket.socket, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Say it; that the other side has gone is for `receive` to tell."""
    data = pickle.dumps(message)
    try:
        if fds:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))
            channel.sendmsg([data], [rights])
        else:
            channel.send(data)
    except OSError:
        pass


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, Sequence[int]]:
    """The next message and its descriptors; None at the end."""
    try:
        data, ancillary, _, _ = channel.recvmsg(LONGEST, _SPACE, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:  # it has left without reading all: its own last words come now
        return receive(channel)
    except ConnectionError:
        return None, ()
    fds = struct.unpack(f"{len(ancillary[0][2]) // 4}i", ancillary[0][2]) if ancillary else ()
    return (pickle.loads(data) if data else None), fds


def content(fd: int) -> bytes:
    """All that is in a file."""
    return os.pread(fd, os.fstat(fd).st_size, 0)
