"""A warm zygote changes hands: from the coordinator, which started it early, to the first worker that needs its kind.

    coordinator ──socket── keeper ── zygote              while Ray starts
         worker ──socket── keeper ── zygote ── trial …   from its first order on

Workers on the coordinator's machine find the address in their environment, name the kind they need, and are sent the
socket itself. Whoever holds that socket keeps the zygote alive: so it dies with the coordinator before, and with the
worker after. The address is abstract (no file is left behind), and both sides insist on a peer of their own user.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable

from orchestrator.node.kind import Kind
from orchestrator.node.zygote import MESSAGE

ADDRESS = "ORCHESTRATE_ZYGOTE"  # in the environment of workers, not of trials
_PATIENCE = 10.0  # seconds for the other side's next word; without it a worker starts a zygote of its own


class Offer:
    """An address where one zygote can be had, set in this process's environment."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        name = f"orchestrate-{secrets.token_hex(16)}"
        self._listener = _socket()
        self._listener.bind(f"\0{name}")
        self._listener.listen()
        self._thread: threading.Thread | None = None
        os.environ[ADDRESS] = name

    def give(self, channel: socket.socket, end: Callable[[], None]) -> None:
        """From now on the first who asks gets `channel`, if the kind is right; else `end` is called."""
        self._thread = threading.Thread(target=self._serve, args=(channel, end), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nobody gets it any more."""
        os.environ.pop(ADDRESS, None)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        if self._thread is not None:
            self._thread.join()
        self._listener.close()

    def _serve(self, channel: socket.socket, end: Callable[[], None]) -> None:
        try:
            with self._asker() as asker:
                wanted = asker.recv(MESSAGE) == self._kind.text()
                socket.send_fds(asker, [b"here"], [channel.fileno()] if wanted else [])
        except OSError:  # closed, or the worker went away
            wanted = False
        self._listener.close()  # all trials of a sweep are of one kind: who comes later need not wait for an answer
        if wanted:
            channel.close()  # it is the worker's alone
        else:
            end()

    def _asker(self) -> socket.socket:
        while True:
            asker, _ = self._listener.accept()
            asker.settimeout(_PATIENCE)
            if _is_ours(asker):
                return asker
            asker.close()


def ask(kind: Kind) -> socket.socket | None:
    """The socket of a zygote of this kind that was started early; None where there is none to be had."""
    name = os.environ.get(ADDRESS)
    if not name:
        return None
    with contextlib.suppress(OSError), _socket() as peer:
        peer.settimeout(_PATIENCE)
        peer.connect(f"\0{name}")
        if _is_ours(peer):
            peer.send(kind.text())
            _, found, _, _ = socket.recv_fds(peer, MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
            return socket.socket(fileno=found[0]) if found else None
    return None


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _is_ours(peer: socket.socket) -> bool:
    """Whether the process at the other end is of this user."""
    layout = struct.Struct("3i")  # pid, uid, gid
    _, uid, _ = layout.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size))
    return bool(uid == os.getuid())
