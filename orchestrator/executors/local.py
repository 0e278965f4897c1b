"""Attempts on this machine, without Ray: a thread supervises each of them, and zygotes go from one to the next."""

from __future__ import annotations

import copy
import math
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.decide import pace, slots
from orchestrator.executors import gpus as gpu_driver
from orchestrator.executors import sizes
from orchestrator.model.events import Batch, Ended
from orchestrator.model.order import Order
from orchestrator.model.sweep import Resources
from orchestrator.node.attempt import run_attempt
from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.node.shared import cgroups
from orchestrator.node.shared.placement import Placement
from orchestrator.node.watch.memory import NodeMemory

Key = tuple[str, int]

_ROUNDING = 1e-9  # of shares that add up to one


class _Killed(Exception):
    """Raised through a running attempt, which takes its processes with it."""


@dataclass(eq=False)
class _Attempt:
    """One attempt that has not ended."""

    order: Order
    wanted: Resources
    gpus: tuple[str, ...] = ()
    thread: threading.Thread | None = None  # once it has room
    why: str | None = None  # it was asked to end
    killed: bool = False

    @property
    def key(self) -> Key:
        return self.order.trial_id, self.order.attempt


class LocalExecutor:
    """Runs as many attempts at once as this machine has room for; what is launched beyond that waits its turn.

    All state belongs to the caller's thread. The supervising threads read what their attempt was asked, and put batches
    into a queue.
    """

    def __init__(self, cpus: float | None = None, gpus: Sequence[str] = ()) -> None:
        """`cpus`: all that this process may use, unless given. `gpus`: ids as CUDA_VISIBLE_DEVICES takes them."""
        self._host = socket.gethostname()
        there = {
            "CPU": float(cpus or cgroups.cpus()),
            "GPU": float(len(gpus)),
            "memory": float(NodeMemory().room().total),
        }
        self._nodes: list[dict[str, Any]] = [{"NodeManagerHostname": self._host, "Resources": there}]
        self._room = _Room({name: there[name] for name in ("CPU", "memory")}, dict.fromkeys(gpus, 1.0))
        self._attempts: dict[Key, _Attempt] = {}
        self._waiting: deque[_Attempt] = deque()
        self._batches: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        self._idle: list[ZygotePool] = []

    def resolve(self, resources: Resources) -> Resources:
        return sizes.resolve(self._nodes, resources)

    def check(self, resources: Resources) -> None:
        wanted = self.resolve(resources)
        if not sizes.capacity(self._nodes, wanted):
            raise sizes.refusal(self._nodes, wanted)

    def free(self, resources: Resources, opened: Sequence[Resources] = ()) -> bool:
        room = copy.deepcopy(self._room)
        ahead = [attempt.wanted for attempt in self._waiting] + [self.resolve(size) for size in opened]
        return all(room.take(wanted) is not None for wanted in (*ahead, self.resolve(resources)))

    def launch(self, order: Order, resources: Resources) -> None:
        attempt = _Attempt(order, self.resolve(resources))
        self._attempts[attempt.key] = attempt
        self._waiting.append(attempt)
        self._start_waiting()

    def poll(self, timeout: float) -> list[Batch]:
        batches: list[Batch] = []
        try:
            batches.append(self._batches.get(timeout=timeout))
            while True:
                batches.append(self._batches.get_nowait())
        except queue.Empty:
            pass
        for batch in batches:
            if isinstance(batch.events[-1], Ended):
                self._forget((batch.trial_id, batch.attempt))
        self._start_waiting()
        return batches

    def notices(self) -> list[str]:
        return []

    def stop(self, trial_id: str, attempt: int, why: str) -> None:
        found = self._attempts.get((trial_id, attempt))
        if found is None:
            return
        if found.thread is None:
            self._cancel(found)
        elif found.why is None:
            found.why = why

    def kill(self) -> None:
        for attempt in list(self._waiting):
            self._cancel(attempt)
        for attempt in self._attempts.values():
            attempt.killed = True

    def close(self) -> None:
        self.kill()
        for attempt in self._attempts.values():
            if attempt.thread is not None:
                attempt.thread.join()
        for zygote_pool in self._idle:
            zygote_pool.close()

    # ------------------------------------------------------------ from launch to end

    def _start_waiting(self) -> None:
        """Start what waits, in order, as long as there is room for the next one."""
        while self._waiting:
            gpus = self._room.take(self._waiting[0].wanted)
            if gpus is None:
                return
            attempt = self._waiting.popleft()
            attempt.gpus = gpus
            attempt.thread = threading.Thread(target=self._run, args=(attempt,), daemon=True)
            attempt.thread.start()

    def _cancel(self, attempt: _Attempt) -> None:
        """End an attempt that waits."""
        self._waiting.remove(attempt)
        del self._attempts[attempt.key]
        self._batches.put(Batch(*attempt.key, 0, (Ended(time.time(), asked="cancelled"),)))

    def _forget(self, key: Key) -> None:
        """An attempt has ended: give its room to others."""
        attempt = self._attempts.pop(key, None)
        if attempt is not None:
            self._room.give_back(attempt.wanted, attempt.gpus)

    def _run(self, attempt: _Attempt) -> None:
        """Supervise an attempt, in a thread of its own. Its last batch is sent when its zygotes are free for others."""
        seq = 0
        zygote_pool = self._idle.pop() if self._idle else ZygotePool()
        place = Placement(self._host, gpus=attempt.gpus, gpu_uuids=gpu_driver.uuids(attempt.gpus))

        def asked() -> str | None:
            if attempt.killed:
                raise _Killed
            return attempt.why

        def interval() -> float:
            return pace.interval(attempt.order.interval, len(self._attempts) - len(self._waiting))

        def lost(**facts: Any) -> Batch:
            return Batch(*attempt.key, seq, (Ended(time.time(), **facts),))

        try:
            for last in run_attempt(attempt.order, place, asked, zygote_pool, interval=interval):
                seq = last.seq + 1
                if not isinstance(last.events[-1], Ended):
                    self._batches.put(last)
        except _Killed:
            last = lost(asked="cancelled")
        except Exception as error:  # the supervisor's, not the trial's: a full disk, or too many open files
            last = lost(lost="worker", detail=f"{type(error).__name__}: {error}")
        self._idle.append(zygote_pool)
        self._batches.put(last)


@dataclass
class _Room:
    """What of the machine no attempt holds."""

    amounts: dict[str, float]  # of all but GPUs, by Ray's names
    gpus: dict[str, float]  # id of each GPU -> the part of it that is free

    def take(self, wanted: Resources) -> tuple[str, ...] | None:
        """Hold this much; returns the GPUs, or None if there is no room for it now."""
        gpus = self._fitting(float(wanted.gpus))
        amounts = _amounts(wanted)
        if gpus is None or any(size > self.amounts.get(name, 0.0) + _ROUNDING for name, size in amounts.items()):
            return None
        self._change(wanted, gpus, -1)
        return gpus

    def give_back(self, wanted: Resources, gpus: Sequence[str]) -> None:
        self._change(wanted, gpus, 1)

    def _fitting(self, count: float) -> tuple[str, ...] | None:
        """GPUs that have this much left: a part of one, or several whole ones."""
        share, number = min(count, 1.0), math.ceil(count)
        found = [name for name, left in self.gpus.items() if left + _ROUNDING >= share][:number]
        return tuple(found) if len(found) == number else None

    def _change(self, wanted: Resources, gpus: Sequence[str], sign: int) -> None:
        for name, size in _amounts(wanted).items():
            self.amounts[name] += sign * size
        for name in gpus:
            self.gpus[name] += sign * min(float(wanted.gpus), 1.0)


def _amounts(wanted: Resources) -> dict[str, float]:
    """What it asks for beside GPUs."""
    return {name: size for name, size in slots.bundle(wanted).items() if size and name != "GPU"}
