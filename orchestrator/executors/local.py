"""Attempts on this machine without Ray: a thread and a zygote for each slot."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Sequence

from orchestrator.model.events import Batch, Ended
from orchestrator.model.order import Order
from orchestrator.model.sweep import Resources
from orchestrator.node.attempt import run_attempt
from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.node.shared.placement import Placement

_Key = tuple[str, int]


class _Killed(Exception):
    """Raised through a running attempt, which takes its processes with it."""


class LocalExecutor:
    """A fixed number of slots; each may hold GPUs of its own, named by their ids."""

    def __init__(self, slots: int, gpus: Sequence[Sequence[str]] = ()) -> None:
        self._gpus = [tuple(ids) for ids in gpus] or [()] * slots
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._batches: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        self._why: dict[_Key, str] = {}  # what running attempts were asked
        self._live: set[_Key] = set()
        self._errors: list[BaseException] = []
        self._killed = threading.Event()
        self._threads = [threading.Thread(target=self._serve, args=(ids,), daemon=True) for ids in self._gpus]
        for thread in self._threads:
            thread.start()

    def free(self, resources: Resources) -> bool:
        """Whether a slot is idle; every slot is of one size."""
        return len(self._live) < len(self._threads)

    def launch(self, order: Order, resources: Resources) -> None:
        """Start an attempt in the next idle slot."""
        self._live.add((order.trial_id, order.attempt))
        self._orders.put(order)

    def poll(self, timeout: float) -> list[Batch]:
        """All batches there are; waits for the first."""
        if self._errors:
            raise self._errors[0]
        batches: list[Batch] = []
        try:
            batches.append(self._batches.get(timeout=timeout))
            while True:
                batches.append(self._batches.get_nowait())
        except queue.Empty:
            pass
        for batch in batches:
            if isinstance(batch.events[-1], Ended):
                self._live.discard((batch.trial_id, batch.attempt))
                self._why.pop((batch.trial_id, batch.attempt), None)
        return batches

    def stop(self, trial_id: str, attempt: int, why: str) -> None:
        """Ask a live attempt to end."""
        if (trial_id, attempt) in self._live:
            self._why.setdefault((trial_id, attempt), why)

    def kill(self) -> None:
        """End every attempt at once, with everything it started."""
        self._killed.set()

    def close(self) -> None:
        """End everything; no process is left when this returns."""
        self._killed.set()
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, gpus: tuple[str, ...]) -> None:
        zygote_pool = ZygotePool()
        try:
            while (order := self._orders.get()) is not None:
                self._run(order, gpus, zygote_pool)
        except BaseException as error:  # raised again in the caller's thread
            self._errors.append(error)
        finally:
            zygote_pool.close()

    def _run(self, order: Order, gpus: tuple[str, ...], zygote_pool: ZygotePool) -> None:
        """Every attempt ends with `Ended`, killed or not."""
        key = order.trial_id, order.attempt

        def asked() -> str | None:
            if self._killed.is_set():
                raise _Killed
            return self._why.get(key)

        node, seq = socket.gethostname(), 0
        try:
            for batch in run_attempt(order, Placement(node, gpus=gpus), asked, zygote_pool):
                self._batches.put(batch)
                seq = batch.seq + 1
        except _Killed:
            self._batches.put(Batch(*key, seq, (Ended(at=time.time(), asked="killed"),)))
