"""A warm zygote for every worker of this machine: copies of the one that the coordinator started early.

    coordinator ──socket── keeper ── zygote                  imports while Ray starts
                                       ├── keeper ── copy ── trial …
         worker ──socket───────────────┘                     from its first order on

Workers on the coordinator's machine find the address in their environment, name the kind they need, and are sent the
socket of a copy: modules are imported once, and their memory is shared. A copy dies with its worker, and all of them
with the coordinator. The address is abstract (no file is left behind), and both sides insist on a peer of their own
user.
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
from orchestrator.node.messages import LONGEST

ADDRESS = "ORCHESTRATE_ZYGOTE"  # in the environment of workers, not of trials
_PATIENCE = 10.0  # seconds for the other side's next word; without it a worker starts a zygote of its own


class Offer:
    """An address where zygotes of one kind can be had, set in this process's environment."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        name = f"orchestrate-{secrets.token_hex(16)}"
        self._listener = _socket()
        self._listener.bind(f"\0{name}")
        self._listener.listen()
        self._thread: threading.Thread | None = None
        os.environ[ADDRESS] = name

    def give(self, copy: Callable[[], socket.socket | None]) -> None:
        """From now on whoever asks for the right kind gets what `copy` gives, from a thread."""
        self._thread = threading.Thread(target=self._serve, args=(copy,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nobody gets it any more."""
        os.environ.pop(ADDRESS, None)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        if self._thread is not None:
            self._thread.join()
        self._listener.close()

    def _serve(self, copy: Callable[[], socket.socket | None]) -> None:
        while (asker := self._asker()) is not None:
            with contextlib.suppress(OSError), asker:  # it went away
                channel = copy() if asker.recv(LONGEST) == self._kind.text() else None
                with channel or contextlib.nullcontext():  # it is the worker's alone
                    socket.send_fds(asker, [b"here"], [channel.fileno()] if channel else [])

    def _asker(self) -> socket.socket | None:
        """The next one of this user; None once the offer is closed."""
        while True:
            try:
                asker, _ = self._listener.accept()
            except OSError:
                return None
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
            _, found, _, _ = socket.recv_fds(peer, LONGEST, 1, socket.MSG_CMSG_CLOEXEC)
            return socket.socket(fileno=found[0]) if found else None
    return None


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _is_ours(peer: socket.socket) -> bool:
    """Whether the process at the other end is of this user."""
    layout = struct.Struct("3i")  # pid, uid, gid
    _, uid, _ = layout.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size))
    return bool(uid == os.getuid())
