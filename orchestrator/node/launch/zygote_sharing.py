"""Share one zygote among all workers of a machine: the first worker starts it, and each worker gets a copy.

    worker ──connection── host ── keeper ── zygote                 imports once
       │                                      └── keeper ── copy ── trial …
       └──channel─────────────────────────────────────────────┘

The workers of one sweep have a name in their environment. It and the zygote's spec give the address of the host's
listening socket. The zygote lives as long as somebody has a connection to its host. A copy dies with its worker, as if
the worker had started it. Where Ray was started by the coordinator, the coordinator connects first, so that the import
runs while Ray starts; it owns the zygote (`{"do": "own"}`), so everything ends with it.

The host (`zygote_host`) runs no code of the user, so it answers while the zygote imports. If the zygote cannot be
forked, the host ends it and tells every worker. The import sees the GPUs of the first worker; it goes on even if that
worker gives up while others wait. The address is abstract, so that no file is left behind, and both sides accept only a
peer of their own user.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable

from orchestrator.node.shared.zygote_spec import ZygoteSpec

NAME = "ORCHESTRATE_ZYGOTE"  # in the environment of coordinator and workers, but not of trials
_TRIES, _PAUSE = 100, 0.01  # how often to look for a host while another one starts or ends, and seconds between
_PATIENCE = 10.0  # seconds for a host to accept a connection; nothing that it does takes long


def new_name() -> str:
    """A name for the workers of one run of a sweep."""
    return secrets.token_hex(16)


def connect(spec: ZygoteSpec, start: Callable[[socket.socket], None], user: int | None = None) -> socket.socket | None:
    """A connection to the host for this spec. If there is none, `start` must start one with a listening socket.

    None if nothing can be shared; the worker then starts a zygote of its own. `user`: whose host to accept, by default
    this user's.
    """
    name = os.environ.get(NAME)
    if not name or spec.start != "fork":
        return None
    with contextlib.suppress(OSError):  # such sockets may be forbidden here
        address = _address(name, spec)
        for _ in range(_TRIES):
            connection = _connect(address) or _start_host(address, start)
            if connection is not None:
                return trusted(connection, user)
            time.sleep(_PAUSE)
    return None


def _connect(address: str) -> socket.socket | None:
    """None if nobody listens."""
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


def _start_host(address: str, start: Callable[[socket.socket], None]) -> socket.socket | None:
    """None if another worker was faster, or if an earlier host has not quite ended."""
    with _socket() as listener:
        try:
            listener.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return None
            raise
        listener.listen(socket.SOMAXCONN)
        connection = _connect(address)  # before the host starts: it ends as soon as it has no connection
        start(listener)
    return connection


def _address(name: str, spec: ZygoteSpec) -> str:
    """It depends on cgroup and namespaces: containers and jobs share a network, but not processes or limits."""
    surroundings = [os.readlink(f"/proc/self/ns/{namespace}") for namespace in ("mnt", "pid")]
    with open("/proc/self/cgroup") as groups:
        surroundings.append(groups.read())
    return f"\0orchestrate-{name}-{hashlib.sha256(repr((spec, surroundings)).encode()).hexdigest()[:16]}"


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def trusted(connection: socket.socket, user: int | None = None) -> socket.socket | None:
    """The connection, if the process at its other end belongs to `user`, by default to this user; else None."""
    layout = struct.Struct("3i")  # pid, uid, gid
    _, uid, _ = layout.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size))
    if uid == (os.getuid() if user is None else user):
        return connection
    connection.close()
    return None
