"""One warm process for all workers of a machine: the first one that needs it starts it, and each gets a copy.

    worker ──connection── host ── keeper ── zygote                 imports once
       │                                      ├── keeper ── copy ── trial …
       └───────────────socket─────────────────────────┘

Workers of one sweep find the name of its sharing in their environment, and each other by the spec of trial that they
need. A connection counts as an interest in the zygote: when nobody has any, it ends. A copy dies with its worker as if
that had started it. Where Ray is the coordinator's own, the coordinator comes first: it imports while Ray starts, and
all ends with it (`{"do": "own"}`).

The host runs no code of the user, so it answers while the zygote imports; if that cannot be forked, the host ends it
and says so to all. The import sees the GPUs of whoever came first, to its end, even if that one has given up meanwhile
and others wait. The address is abstract (no file is left behind), and both sides insist on a peer of their own user.
"""

from __future__ import annotations

import contextlib
import errno
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

from orchestrator.node.launch import zygote
from orchestrator.node.shared import messages, processes
from orchestrator.node.shared.zygote_spec import ZygoteSpec

NAME = "ORCHESTRATE_ZYGOTE"  # in the environment of coordinator and workers, not of trials
_TRIES, _PAUSE = 100, 0.01  # how often it is looked for while another one starts or ends, and seconds between
_PATIENCE = 10.0  # seconds for a host to let somebody in; it runs nothing that takes long


def new_name() -> str:
    """What the workers of one run of a sweep have in common."""
    return secrets.token_hex(16)


def connect(spec: ZygoteSpec, start: Callable[[socket.socket], None]) -> socket.socket | None:
    """A connection to the host of this spec; `start` makes one of a listening socket, if there is none yet.

    None where nothing is shared: a worker then has a zygote of its own.
    """
    name = os.environ.get(NAME)
    if not name or spec.start != "fork":
        return None
    with contextlib.suppress(OSError):  # such sockets may be forbidden here
        address = _address(name, spec)
        for _ in range(_TRIES):
            found = _found(address) or _made(address, start)
            if found is not None:
                return _trusted(found)
            time.sleep(_PAUSE)
    return None


def _found(address: str) -> socket.socket | None:
    connection = _socket()
    connection.settimeout(_PATIENCE)
    try:
        connection.connect(address)
    except OSError as error:
        connection.close()
        if isinstance(error, ConnectionRefusedError):
            return None
        raise
    connection.settimeout(None)
    return connection


def _made(address: str, start: Callable[[socket.socket], None]) -> socket.socket | None:
    """None where another one is faster, or has not quite gone."""
    with _socket() as listener:
        try:
            listener.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return None
            raise
        listener.listen(socket.SOMAXCONN)
        connection = _found(address)  # before it starts: a host to whom nobody comes would not know when to end
        start(listener)
    return connection


def host() -> NoReturn:
    """In a fresh interpreter: leave the worker's children, and be a host with a zygote."""
    listener, (spec, printed) = socket.socket(fileno=int(sys.argv[2])), map(int, sys.argv[3:5])
    for fd in (listener.fileno(), spec, printed):
        os.set_inheritable(fd, False)
    if os.fork():
        os._exit(0)
    processes.fresh_signals()
    os.setsid()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        listener.close()
        os.close(spec)
        os.close(printed)
        zygote.live(theirs)
    theirs.close()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # of the keeper
    messages.send(ours, {"do": "import"}, [spec, printed])
    try:
        os.close(spec)
        _Host(listener, ours, printed).serve()
    finally:
        os._exit(0)


class _Host:
    """Passes on who wants a copy, once the zygote has imported."""

    def __init__(self, listener: socket.socket, channel: socket.socket, printed: int) -> None:
        """`channel`: to the zygote. `printed`: the file with what its import prints."""
        self._listener, self._zygote, self._printed = listener, channel, printed
        self._connections: dict[int, socket.socket] = {}
        self._waiting: list[tuple[socket.socket, socket.socket]] = []  # connections, and the channels of copies to be
        self._owner: socket.socket | None = None
        self._said: dict[str, Any] | None = None  # what the zygote says of its import, or of its end
        self._told = False  # the owner knows
        self._over = False
        self._poll = select.poll()
        for each in (listener, channel):
            self._poll.register(each, select.POLLIN)

    def serve(self) -> None:
        """Until nobody is interested, the owner leaves, or the zygote dies."""
        self._accept()
        while not self._over and (self._connections or self._last_call()):
            for fd, _ in self._poll.poll():
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == self._zygote.fileno():
                    self._heed()
                else:
                    self._hear(self._connections[fd])
            self._settle()
        self._end()

    def _accept(self) -> None:
        connection = _trusted(self._listener.accept()[0])
        if connection:
            self._connections[connection.fileno()] = connection
            self._poll.register(connection, select.POLLIN)

    def _last_call(self) -> bool:
        """Refuse whoever comes from now on; whether somebody has come before."""
        if self._listener.fileno() >= 0:
            self._poll.unregister(self._listener)
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._accept()
            self._listener.close()
        return bool(self._connections)

    def _hear(self, connection: socket.socket) -> None:
        """What the other side of a connection wants."""
        message, fds = messages.receive(connection)
        if message is not None and fds:
            self._waiting.append((connection, socket.socket(fileno=fds[0])))
        elif message is not None:
            self._owner = connection
        elif connection is self._owner:  # not closed: it waits until all has ended
            self._over = True
        else:
            self._poll.unregister(connection)
            self._connections.pop(connection.fileno()).close()

    def _heed(self) -> None:
        message, _ = messages.receive(self._zygote)
        self._said = message or {}
        if "checked" not in self._said:
            self._over = True
            self._listener.close()  # before anybody hears of it, and comes again
        elif self._said["unsafe"]:
            self._poll.unregister(self._zygote)
            self._end_zygote()  # it may hold a GPU

    def _settle(self) -> None:
        """Tell what is known by now, to whom it concerns."""
        if self._owner and self._said and not self._told:
            messages.send(self._owner, self._said)
            self._told = True
        for entry in list(self._waiting):
            connection, channel = entry
            gone = connection.fileno() < 0
            if self._said is None and not (gone and self._connections):  # if all have gone, its end comes first
                continue
            self._waiting.remove(entry)
            with channel:
                if gone or self._zygote.fileno() < 0 or self._over:
                    why = {key: value for key, value in (self._said or {}).items() if key != "checked" and value}
                    zygote.refuse(channel, self._printed, why)
                else:
                    messages.send(self._zygote, {"do": "copy"}, [channel.fileno()])

    def _end(self) -> None:
        self._listener.close()
        self._end_zygote()
        self._said = self._said or {}
        self._settle()

    def _end_zygote(self) -> None:
        """Nothing is left of it when this returns."""
        if self._zygote.fileno() >= 0:
            with contextlib.suppress(OSError):
                self._zygote.shutdown(socket.SHUT_WR)
            while messages.receive(self._zygote)[0] is not None:
                pass
            self._zygote.close()


def _address(name: str, spec: ZygoteSpec) -> str:
    """Nobody is found who sees other files or processes, or has other limits: containers, and jobs, share a network."""
    place = [os.readlink(f"/proc/self/ns/{space}") for space in ("mnt", "pid")]
    with open("/proc/self/cgroup") as groups:
        place.append(groups.read())
    return f"\0orchestrate-{name}-{hashlib.sha256(repr((spec, place)).encode()).hexdigest()[:16]}"


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
