"""The worker's side of its zygote: start it, order trials, and let it go."""

from __future__ import annotations

import atexit
import os
import pickle
import select
import socket
import subprocess
from collections.abc import Sequence
from typing import IO, Any, Literal

from orchestrator.model.order import Order
from orchestrator.node.launch import zygote, zygote_sharing
from orchestrator.node.shared import messages, processes
from orchestrator.node.shared.trial_paths import TrialPaths
from orchestrator.node.shared.zygote_spec import ZygoteSpec

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
    hidden = (*_RAYS, zygote_sharing.NAME)
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
            command = zygote.command("zygote", "main", theirs.fileno(), "spawn" if spawn else "fork")
            _start(command, [theirs.fileno()], gpus)
        return cls(ours)

    @classmethod
    def owned(cls, spec: ZygoteSpec, gpus: Sequence[str], log: int) -> Zygote | None:
        """One that workers get copies of, and that all of them end with; None where nothing is to be shared.

        It imports at once, as with `warm`.
        """
        connection = _shared(spec, gpus, log)
        if connection is None:
            return None
        messages.send(connection, {"do": "own"})
        return cls(connection)

    @classmethod
    def copied(cls, shared: socket.socket) -> Zygote:
        """A copy of the one that workers share over this connection, as if this process had started it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            messages.send(shared, {"do": "copy"}, [theirs.fileno()])
        messages.send(ours, {"do": "stand", "as": processes.process_settings()})
        return cls(ours)

    def warm(self, spec: ZygoteSpec, log: int) -> None:
        """Import before there is an order; the message that tells how it went has "checked"."""
        with _file(spec) as file:
            messages.send(self.socket, {"do": "import"}, [file.fileno(), log])

    def run(self, order: Order, gpus: Sequence[str], paths: TrialPaths, journal: int, stack: int, log: int) -> None:
        """Start one trial; `receive` tells what becomes of it."""
        self.idle = False
        with _file((order, list(gpus), paths)) as file:
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


def _start(command: Sequence[str], fds: Sequence[int], gpus: Sequence[str]) -> None:
    """Start what leaves this process's children at once."""
    nothing = subprocess.DEVNULL
    starter = subprocess.Popen(
        command, pass_fds=fds, env=environment(gpus), stdin=nothing, stdout=nothing, stderr=nothing
    )
    starter.wait()


def _shared(spec: ZygoteSpec, gpus: Sequence[str], log: int | None = None) -> socket.socket | None:
    """A connection to the shared zygote of this spec, started if need be: its imports then see these GPUs."""

    def start(listener: socket.socket) -> None:
        with _file(spec) as file, open(os.memfd_create("printed"), "wb") as printed:
            fds = [listener.fileno(), file.fileno(), printed.fileno() if log is None else log]
            _start(zygote.command("zygote_sharing", "host", *fds), fds, gpus)

    return zygote_sharing.connect(spec, start)


def _file(content: object) -> IO[bytes]:
    """A nameless file for what may be longer than a message."""
    pickled = pickle.dumps(content)
    file = os.fdopen(os.memfd_create("order"), "wb", buffering=0)
    file.write(pickled)
    return file


class ZygotePool:
    """The zygote of one worker, replaced when a trial needs another spec. Not for use by several threads."""

    def __init__(self) -> None:
        self._spec: ZygoteSpec | None = None
        self._zygote: Zygote | None = None
        self._shared: dict[ZygoteSpec, socket.socket] = {}  # connections that keep alive what ours are copies of
        self._alone: set[ZygoteSpec] = set()  # kinds whose shared zygote was no good
        self._unsafe: dict[ZygoteSpec, str] = {}
        atexit.register(self.close)

    def unsafe(self, order: Order, gpus: Sequence[str], why: str) -> None:
        """Trials of this spec cannot be forked: start them fresh from now on."""
        self._unsafe[ZygoteSpec.of(order, gpus)] = why
        self._end()  # the connection stays, so that the next worker is told without an import

    def method(self, order: Order, gpus: Sequence[str]) -> Literal["fork", "spawn"]:
        """How the next trial of this spec is started."""
        return "spawn" if order.start == "spawn" or ZygoteSpec.of(order, gpus) in self._unsafe else "fork"

    def zygote(self, order: Order, gpus: Sequence[str]) -> Zygote:
        """A zygote that is idle and of the right spec."""
        spec = ZygoteSpec.of(order, gpus)
        if self._zygote is None or self._spec != spec or not self._zygote.idle:
            self._end()
            spawn = self.method(order, gpus) == "spawn"
            shared = None if spawn else self._connected(spec, gpus)
            self._zygote, self._spec = Zygote.copied(shared) if shared else Zygote.start(gpus, spawn), spec
        return self._zygote

    def _connected(self, spec: ZygoteSpec, gpus: Sequence[str]) -> socket.socket | None:
        if spec not in self._shared and spec not in self._alone:
            connection = _shared(spec, gpus)
            if connection is not None:
                self._shared[spec] = connection
        return self._shared.get(spec)

    def alone(self, order: Order, gpus: Sequence[str]) -> bool:
        """Have nothing to do any more with the shared zygote of this spec; whether that was so far."""
        spec = ZygoteSpec.of(order, gpus)
        shared = spec in self._shared
        self._alone.add(spec)
        self.close()
        return shared

    def _end(self) -> None:
        if self._zygote is not None:
            self._zygote.close()
        self._zygote = self._spec = None

    def close(self) -> None:
        """End the zygote and everything below it; what others share lives as long as they need it."""
        for connection in self._shared.values():  # before: a copy that was not made yet is not waited for
            connection.close()
        self._shared.clear()
        self._end()
