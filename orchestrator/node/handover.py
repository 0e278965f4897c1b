"""One warm process for all workers of a machine: the first one that needs it starts it, and each gets a copy.

    worker ──connection── host ── keeper ── zygote                 imports once
       │                                      ├── keeper ── copy ── trial …
       └───────────────socket─────────────────────────┘

Workers of one sweep find the name of its sharing in their environment, and each other by the kind of trial that they
need. A connection counts as an interest in the zygote: when nobody has any, it ends. A copy dies with its worker as if
that had started it. Where Ray is the coordinator's own, the coordinator comes first: it imports while Ray starts, and
all ends with it (`{"do": "own"}`).

The host runs no code of the user, so it answers while the zygote imports. The address is abstract (no file is left
behind), and both sides insist on a peer of their own user.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from orchestrator.node import messages, processes, zygote
from orchestrator.node.kind import Kind

NAME = "ORCHESTRATE_ZYGOTE"  # in the environment of coordinator and workers, not of trials
_TRIES, _PAUSE = 100, 0.01  # of one that is just ending, and seconds between them


def new_name() -> str:
    """What the workers of one run of a sweep have in common."""
    return secrets.token_hex(16)


def connect(kind: Kind, start: Callable[[socket.socket], None]) -> socket.socket | None:
    """A connection to the host of this kind; `start` makes one of a listening socket, if there is none yet.

    None where nothing is shared: a worker then has a zygote of its own.
    """
    name = os.environ.get(NAME)
    if not name or kind.start != "fork":
        return None
    with contextlib.suppress(OSError):  # such sockets may be forbidden here
        address = _address(name, kind)
        for _ in range(_TRIES):
            found = _found(address) or _made(address, start)
            if found is not None:
                return _trusted(found)
            time.sleep(_PAUSE)
    return None


def _found(address: str) -> socket.socket | None:
    connection = _socket()
    try:
        connection.connect(address)
    except ConnectionRefusedError:
        connection.close()
        return None
    return connection


def _made(address: str, start: Callable[[socket.socket], None]) -> socket.socket | None:
    """None where another one is faster, or has not quite gone."""
    with _socket() as listener:
        try:
            listener.bind(address)
        except OSError:
            return None
        listener.listen(socket.SOMAXCONN)
        connection = _found(address)  # before it starts: a host to whom nobody comes would not know when to end
        start(listener)
    return connection


def host() -> NoReturn:
    """In a fresh interpreter: leave the worker's children, and be a host with a zygote."""
    listener, (kind, printed) = socket.socket(fileno=int(sys.argv[2])), map(int, sys.argv[3:5])
    for fd in (listener.fileno(), kind, printed):
        os.set_inheritable(fd, False)
    if os.fork():
        os._exit(0)
    processes.fresh_signals()
    os.setsid()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        listener.close()
        zygote.live(theirs)
    theirs.close()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # of the keeper
    messages.send(ours, {"do": "import"}, [kind, printed])
    try:
        _Host(listener, ours).serve()
    finally:
        os._exit(0)


class _Host:
    """Passes on who wants a copy, once the zygote has imported."""

    def __init__(self, listener: socket.socket, zygote: socket.socket) -> None:
        self._listener, self._zygote = listener, zygote
        self._connections: dict[int, socket.socket] = {}
        self._waiting: list[tuple[int, socket.socket]] = []  # connections, and channels that copies are to have
        self._owner: socket.socket | None = None
        self._checked: dict[str, Any] | None = None  # what the import has said
        self._untold: list[socket.socket] = []  # the owner, until it knows
        self._poll = select.poll()
        for each in (listener, zygote):
            self._poll.register(each, select.POLLIN)

    def serve(self) -> None:
        """Until nobody is interested, or the zygote has ended."""
        self._accept()
        while self._connections or self._last_call():
            for fd, _ in self._poll.poll():
                if fd == self._listener.fileno():
                    self._accept()
                elif fd != self._zygote.fileno():
                    if not self._hear(self._connections[fd]):
                        return self._end()
                elif not self._heed():
                    return None
        return self._end()

    def _accept(self) -> None:
        connection = _trusted(self._listener.accept()[0])
        if connection:
            self._connections[connection.fileno()] = connection
            self._poll.register(connection, select.POLLIN)

    def _last_call(self) -> bool:
        """Refuse whoever comes from now on; whether somebody has come before."""
        with contextlib.suppress(OSError):
            self._poll.unregister(self._listener)
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.setblocking(False)
            while True:
                self._accept()
        self._listener.close()
        return bool(self._connections)

    def _hear(self, connection: socket.socket) -> bool:
        """What the other side of a connection wants; False if all is to end."""
        message, fds = messages.receive(connection)
        if message is None and connection is self._owner:  # it hears of our end when that is complete
            return False
        if message is None:
            self._drop(connection)
            return True
        if message["do"] == "copy":
            self._waiting.append((connection.fileno(), socket.socket(fileno=fds[0])))
        else:
            self._owner = connection
            self._untold = [connection]
        self._answer()
        return True

    def _drop(self, connection: socket.socket) -> None:
        fd = connection.fileno()
        for waiting in [entry for entry in self._waiting if entry[0] == fd]:
            self._waiting.remove(waiting)
            waiting[1].close()
        self._poll.unregister(fd)
        self._connections.pop(fd).close()

    def _heed(self) -> bool:
        """What the zygote says; False if it has ended."""
        message, _ = messages.receive(self._zygote)
        if message is not None and "checked" in message:
            self._checked = message
            self._answer()
            return True
        self._listener.close()  # before they hear of it, and come again
        for channel in (*self._untold, *(channel for _, channel in self._waiting)):
            messages.send(channel, message or {})
        return False

    def _answer(self) -> None:
        if self._checked is None:
            return
        for owner in self._untold:
            messages.send(owner, self._checked)
        for _, channel in self._waiting:
            messages.send(self._zygote, {"do": "copy"}, [channel.fileno()])
            channel.close()
        self._untold, self._waiting = [], []

    def _end(self) -> None:
        """Nothing is left when this returns."""
        self._listener.close()  # whoever comes now is to make another one
        self._zygote.shutdown(socket.SHUT_WR)
        while messages.receive(self._zygote)[0] is not None:
            pass


def _address(name: str, kind: Kind) -> str:
    """Nobody is found who sees other files or other processes: containers may have one network."""
    views = [os.readlink(f"/proc/self/ns/{space}") for space in ("mnt", "pid")]
    return f"\0orchestrate-{name}-{hashlib.sha256(repr((kind, views)).encode()).hexdigest()[:16]}"


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _trusted(peer: socket.socket) -> socket.socket | None:
    """It, if the process at the other end is of this user."""
    layout = struct.Struct("3i")  # pid, uid, gid
    _, uid, _ = layout.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size))
    if uid == os.getuid():
        return peer
    peer.close()
    return None
