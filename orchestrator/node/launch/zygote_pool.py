"""The worker's side of a zygote: start it, or get a copy of a shared one, give it orders, and end it."""

from __future__ import annotations

import atexit
import os
import pickle
import select
import socket
import subprocess
from collections.abc import Sequence
from typing import IO, Any, Literal

from orchestrator.interpreter import command
from orchestrator.model.order import Order
from orchestrator.node.launch import zygote_sharing
from orchestrator.node.shared import messages
from orchestrator.node.shared.process_settings import current_settings
from orchestrator.node.shared.trial_paths import TrialPaths
from orchestrator.node.shared.zygote_spec import ZygoteSpec

_FIXED = {
    # One thread each while modules are imported: a thread pool does not survive a fork. A trial sets its own number.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # `cuda.is_available()` in a module must not initialise CUDA
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # makes matrix products deterministic
}
_FROM_RAY = ("RAY_", "__RAY_", "RAYLET_", "SPT_")
_PATIENCE = 60.0  # seconds for a process tree to die; only a process that hangs in the kernel takes long


def environment(gpus: Sequence[str]) -> dict[str, str]:
    """The user's environment: without what Ray adds to a worker's, such as its token, and with what a zygote needs."""
    hidden = (*_FROM_RAY, zygote_sharing.NAME)
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    if env.get("PYTHONBREAKPOINT", "").startswith("ray."):
        del env["PYTHONBREAKPOINT"]
    return {**env, **_FIXED, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}


class Zygote:
    """A connection to one zygote. When it is closed, or this process dies, the zygote and all below it end."""

    def __init__(self, channel: socket.socket) -> None:
        self.socket = channel
        self.idle = True

    @classmethod
    def start(cls, gpus: Sequence[str], spawn: bool) -> Zygote:
        """Start a zygote, whose imports see these GPUs."""
        ours, theirs = messages.channel_pair()
        with theirs:
            program = command("orchestrator.node.launch.zygote", "main", theirs.fileno(), "spawn" if spawn else "fork")
            _start_detached(program, [theirs.fileno()], gpus)
        return cls(ours)

    @classmethod
    def owned(cls, spec: ZygoteSpec, gpus: Sequence[str], log: int) -> Zygote | None:
        """The zygote that workers share; it and all copies end with this connection. None if nothing can be shared.

        It imports at once, as after `import_early`.
        """
        connection = _connect_to_shared(spec, gpus, log)
        if connection is None:
            return None
        messages.send(connection, {"do": "own"})
        zygote = cls(connection)
        zygote.idle = False
        return zygote

    @classmethod
    def copied(cls, shared: socket.socket) -> Zygote:
        """A copy of the zygote that workers share over this connection, with the settings of this process."""
        ours, theirs = messages.channel_pair()
        with theirs:
            messages.send(shared, {"do": "copy"}, [theirs.fileno()])
        messages.send(ours, {"do": "apply_settings", "settings": current_settings()})
        return cls(ours)

    def import_early(self, spec: ZygoteSpec, log: int) -> None:
        """Import before there is an order. The result comes as a message with the key "checked"."""
        self.idle = False
        with _unnamed_file(spec) as file:
            messages.send(self.socket, {"do": "import"}, [file.fileno(), log])

    def run(self, order: Order, gpus: Sequence[str], paths: TrialPaths, journal: int, stack: int, log: int) -> None:
        """Start one trial; what happens to it comes as messages."""
        self.idle = False
        with _unnamed_file((order, list(gpus), paths)) as file:
            messages.send(self.socket, {"do": "run"}, [file.fileno(), journal, stack, log])

    def signal(self, number: int) -> None:
        """Send a signal to the running trial."""
        messages.send(self.socket, {"do": "signal", "number": int(number)})

    def receive(self) -> dict[str, Any] | None:
        """Wait for the next message; None when the zygote has ended and nothing of its tree is left."""
        message, _ = messages.receive(self.socket)
        self.idle = message is not None and ("ended" in message or "unsafe" in message)
        return message

    def close(self) -> None:
        """End the whole tree, and wait until it is empty."""
        if self.socket.fileno() < 0:
            return
        if self.idle and messages.end_politely(self.socket):
            self.socket.close()
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        while select.select([self.socket], [], [], _PATIENCE)[0]:
            if self.receive() is None:
                break
        self.socket.close()


def _start_detached(program: Sequence[str], fds: Sequence[int], gpus: Sequence[str]) -> None:
    """Start a program that calls `processes.leave_parent` first, so that it is no child of this process."""
    null = subprocess.DEVNULL
    starter = subprocess.Popen(program, pass_fds=fds, env=environment(gpus), stdin=null, stdout=null, stderr=null)
    starter.wait()


def _connect_to_shared(spec: ZygoteSpec, gpus: Sequence[str], log: int | None = None) -> socket.socket | None:
    """A connection to the host of the shared zygote. If there is none yet, it is started; imports see these GPUs."""

    def start(listener: socket.socket) -> None:
        with _unnamed_file(spec) as file, open(os.memfd_create("printed"), "wb") as printed:
            fds = [listener.fileno(), file.fileno(), printed.fileno() if log is None else log]
            _start_detached(command("orchestrator.node.launch.zygote_host", "main", *fds), fds, gpus)

    return zygote_sharing.connect(spec, start)


def _unnamed_file(content: object) -> IO[bytes]:
    """A file in memory with an object that may be larger than a message."""
    pickled = pickle.dumps(content)
    file = os.fdopen(os.memfd_create("order"), "wb", buffering=0)
    file.write(pickled)
    return file


class ZygotePool:
    """The one zygote of a worker, replaced when a trial needs another spec. It must not be used by several threads."""

    def __init__(self) -> None:
        self._spec: ZygoteSpec | None = None
        self._zygote: Zygote | None = None
        self._shared: dict[ZygoteSpec, socket.socket] = {}  # connections to hosts; each keeps a shared zygote alive
        self._not_shared: set[ZygoteSpec] = set()  # specs whose shared zygote failed
        self._unsafe: dict[ZygoteSpec, str] = {}  # specs whose zygotes cannot be forked, and why
        atexit.register(self.close)

    def mark_unsafe(self, order: Order, gpus: Sequence[str], why: str) -> None:
        """Start trials of this spec as fresh processes from now on."""
        self._unsafe[ZygoteSpec.of(order, gpus)] = why
        self._end_zygote()  # the connection to the host stays: it tells the next worker without another import

    def method(self, order: Order, gpus: Sequence[str]) -> Literal["fork", "spawn"]:
        """How the next trial of this spec is started."""
        return "spawn" if order.start == "spawn" or ZygoteSpec.of(order, gpus) in self._unsafe else "fork"

    def zygote(self, order: Order, gpus: Sequence[str]) -> Zygote:
        """An idle zygote of the order's spec."""
        spec = ZygoteSpec.of(order, gpus)
        if self._zygote is None or self._spec != spec or not self._zygote.idle:
            self._end_zygote()
            spawn = self.method(order, gpus) == "spawn"
            shared = None if spawn else self._connection(spec, gpus)
            self._zygote, self._spec = Zygote.copied(shared) if shared else Zygote.start(gpus, spawn), spec
        return self._zygote

    def _connection(self, spec: ZygoteSpec, gpus: Sequence[str]) -> socket.socket | None:
        if spec not in self._shared and spec not in self._not_shared:
            connection = _connect_to_shared(spec, gpus)
            if connection is not None:
                self._shared[spec] = connection
        return self._shared.get(spec)

    def stop_sharing(self, order: Order, gpus: Sequence[str]) -> bool:
        """Use no shared zygote of this spec any more; returns whether one was used so far."""
        spec = ZygoteSpec.of(order, gpus)
        was_shared = spec in self._shared
        self._not_shared.add(spec)
        self.close()
        return was_shared

    def _end_zygote(self) -> None:
        if self._zygote is not None:
            self._zygote.close()
        self._zygote = self._spec = None

    def close(self) -> None:
        """End the zygote and everything below it. A shared zygote lives on as long as other workers need it."""
        for connection in self._shared.values():  # first: otherwise we would wait for a copy that was not made yet
            connection.close()
        self._shared.clear()
        self._end_zygote()
