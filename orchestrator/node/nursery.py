"""The worker's side of its zygote: start it, order trials, and let it go."""

from __future__ import annotations

import atexit
import os
import pickle
import select
import socket
import subprocess
from collections.abc import Sequence
from typing import IO, Any

from orchestrator.model import Order
from orchestrator.node import handover, messages, processes, zygote
from orchestrator.node.kind import Kind
from orchestrator.node.places import Place

_FIXED = {
    # One thread each while modules are imported: a pool would not survive the fork. The trial raises them.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # `cuda.is_available()` in a module must not initialise CUDA
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic matrix products
}
_RAYS = ("RAY_", "__RAY_", "RAYLET_", "SPT_")
_PATIENCE = 60.0  # seconds for a tree to die; only a process stuck in the kernel takes long


def environment(gpus: Sequence[str]) -> dict[str, str]:
    """The user's environment without what Ray adds to a worker's (its token above all), and with ours."""
    hidden = (*_RAYS, handover.ADDRESS)
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    if env.get("PYTHONBREAKPOINT", "").startswith("ray."):
        del env["PYTHONBREAKPOINT"]
    return {**env, **_FIXED, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}


class Zygote:
    """One warm process. Closing the socket, or dying, ends it and everything below it."""

    def __init__(self, channel: socket.socket) -> None:
        self.socket = channel
        self.idle = True

    @classmethod
    def start(cls, gpus: Sequence[str], spawn: bool) -> Zygote:
        """A new one, whose imports see these GPUs."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = zygote.command("main", theirs.fileno(), "spawn" if spawn else "fork")
            starter = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env=environment(gpus),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            starter.wait()  # it forks and leaves at once
        return cls(ours)

    @classmethod
    def taken_over(cls, channel: socket.socket) -> Zygote:
        """One that the coordinator has started: from now on as if this process had."""
        zygote = cls(channel)
        messages.send(zygote.socket, {"do": "stand", **processes.standing()})
        return zygote

    def warm(self, kind: Kind, log: int) -> None:
        """Import before there is an order; the message that tells how it went has "checked"."""
        with _file(kind) as file:
            messages.send(self.socket, {"do": "import"}, [file.fileno(), log])

    def copy(self) -> socket.socket | None:
        """The socket of a copy, as warm as this one, which ends with this one at the latest; None if it cannot fork."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            messages.send(self.socket, {"do": "copy"}, [theirs.fileno()])
        if (self.receive() or {}).get("copied"):
            return ours
        ours.close()
        return None

    def run(self, order: Order, gpus: Sequence[str], place: Place, journal: int, stack: int, log: int) -> None:
        """Start one trial; `receive` tells what becomes of it."""
        self.idle = False
        with _file((order, list(gpus), place)) as file:
            messages.send(self.socket, {"do": "run"}, [file.fileno(), journal, stack, log])

    def signal(self, number: int) -> None:
        """Signal the running trial."""
        messages.send(self.socket, {"do": "signal", "number": int(number)})

    def receive(self) -> dict[str, Any] | None:
        """The next message; None when the zygote is gone and nothing of its tree is left."""
        message, _ = messages.receive(self.socket)
        self.idle = message is not None and ("ended" in message or "unsafe" in message)
        return message

    def close(self) -> None:
        """End the whole tree and wait until it is empty."""
        if self.socket.fileno() < 0:
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        while select.select([self.socket], [], [], _PATIENCE)[0]:
            if self.receive() is None:
                break
        self.socket.close()


def _file(content: object) -> IO[bytes]:
    """A nameless file for what may be longer than a message."""
    file = os.fdopen(os.memfd_create("order"), "wb", buffering=0)
    file.write(pickle.dumps(content))
    return file


class Nursery:
    """The zygote of one worker, replaced when a trial needs another kind. Not for use by several threads."""

    def __init__(self) -> None:
        self._kind: Kind | None = None
        self._zygote: Zygote | None = None
        self._unsafe: dict[Kind, str] = {}
        atexit.register(self.close)

    def unsafe(self, order: Order, gpus: Sequence[str], why: str) -> None:
        """Trials of this kind cannot be forked: start them fresh from now on."""
        self._unsafe[Kind.of(order, gpus)] = why
        self.close()

    def method(self, order: Order, gpus: Sequence[str]) -> str:
        """How the next trial of this kind is started."""
        return "spawn" if order.start == "spawn" or Kind.of(order, gpus) in self._unsafe else "fork"

    def zygote(self, order: Order, gpus: Sequence[str]) -> Zygote:
        """A zygote that is idle and of the right kind."""
        kind = Kind.of(order, gpus)
        if self._zygote is None or self._kind != kind or not self._zygote.idle:
            self.close()
            spawn = self.method(order, gpus) == "spawn"
            early = None if spawn else handover.ask(kind)
            self._zygote, self._kind = Zygote.taken_over(early) if early else Zygote.start(gpus, spawn), kind
        return self._zygote

    def close(self) -> None:
        """End the zygote and everything below it."""
        if self._zygote is not None:
            self._zygote.close()
        self._zygote = self._kind = None
