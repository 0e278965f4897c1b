"""Attempts as Ray tasks, each pinned to the GPUs that Ray gives it. With `ray_cluster` the only importer of Ray.

A task is a streaming generator that yields batches of events. Workers are reused (`max_calls=0`), so that their warm
zygotes are; Ray never retries by itself (`max_retries=0`): that is the manifest's to decide.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)

from orchestrator import provenance
from orchestrator.errors import ClusterError, ResourceError
from orchestrator.executors import gpus as gpu_driver
from orchestrator.executors import ray_cluster, slots
from orchestrator.model import Batch, Ended, Order, Resources
from orchestrator.node import places, runner

Key = tuple[str, int]

QUEUE_GRACE = 1.0  # seconds in which an attempt that has just started says so
QUEUED = 32  # attempts that may wait in Ray at most, so that no slot idles between two trials


# ---------------------------------------------------------------- on the node


class Board:
    """Where attempts look whether they are to end."""

    def __init__(self) -> None:
        self._why: dict[Key, str] = {}

    async def ask(self, key: Key, why: str) -> None:
        self._why[key] = why

    async def forget(self, key: Key) -> None:
        self._why.pop(key, None)

    async def asked(self, key: Key) -> str | None:
        return self._why.get(key)


def attempt(order: Order, board: Any, code: list[Any], states: dict[str, Any]) -> Iterator[Batch]:
    """Run one attempt on this node.

    `code` and `states` hold references to the packed project and to checkpoints, fetched only by a node that does
    not see the sweep's folder.
    """
    away = not places.sees(order)
    order = _with_code(order, code) if away else order
    ids = tuple(str(name) for name in ray.get_gpu_ids())
    yield from runner.run_attempt(
        order,
        gpus=ids,
        gpu_uuids=gpu_driver.uuids(ids),
        node=socket.gethostname(),
        node_id=ray.get_runtime_context().get_node_id(),
        asked=_poller(board, (order.trial_id, order.attempt), order.interval),
        states={path: ray.get(state) for path, state in states.items()} if away else {},
    )


def _with_code(order: Order, code: list[Any]) -> Order:
    """The order, importing from this node's own copy where it does not see the sweep's folder."""
    if not code:
        return order
    tree = Path(order.import_path[0])
    local = Path(tempfile.gettempdir()) / f"orchestrate-{os.getuid()}" / "code" / tree.name
    if not local.is_dir():
        provenance.unpack(ray.get(code[0]), local)
    moved = tuple(str(local / Path(entry).relative_to(tree)) for entry in order.import_path)
    return dataclasses.replace(order, import_path=moved)


def _poller(board: Any, key: Key, interval: float) -> Callable[[], str | None]:
    """Ask the board now and then, never waiting for its answer."""
    pending: list[Any] = []
    due = time.monotonic() + interval

    def asked() -> str | None:
        nonlocal due
        if pending:
            ready, _ = ray.wait(pending, timeout=0)
            if not ready:
                return None
            answer: str | None = ray.get(pending.pop())
            due = time.monotonic() + interval
            return answer
        if time.monotonic() >= due:
            pending.append(board.asked.remote(key))
        return None

    return asked


_BOARD: Any = ray.remote(num_cpus=0, max_concurrency=1000)(Board)
_ATTEMPT: Any = ray.remote(max_calls=0, max_retries=0, num_returns="streaming")(attempt)


# ---------------------------------------------------------------- on the coordinator's side


@dataclasses.dataclass
class _Flight:
    """One attempt in flight."""

    stream: Any
    share: float  # of the cluster that it holds
    seq: int = -1
    started: bool = False
    ended: bool = False
    cancel_at: float | None = None  # it is to end, and is taken out of Ray's queue then if it has not started


class RayExecutor:
    """Runs attempts on a Ray cluster: an embedded one on loopback, or one that runs already."""

    def __init__(self, address: str | None = None) -> None:
        """`address` is what `ray_environment.prepare` gave. Raises ClusterError if the cluster cannot be reached."""
        self.address = address
        self.claim = gpu_driver.Claim()
        if self.address is None:
            self.claim = gpu_driver.claim()
            ray_cluster.start_embedded(self.claim.ids)
        else:
            ray_cluster.join(self.address)
        self._board = _BOARD.remote()
        self._code: list[Any] = []
        self._packed = ""
        self._flights: dict[Key, _Flight] = {}
        self._streams: dict[Any, Key] = {}
        self._nodes: list[dict[str, Any]] = []
        self._looked = 0.0
        self._capacities: dict[str, int] = {}

    # ------------------------------------------------------------ resources

    def nodes(self) -> list[dict[str, Any]]:
        """Living nodes, looked up at most every two seconds: nodes may join late."""
        if time.monotonic() - self._looked > 2:
            found = [node for node in ray.nodes() if node["Alive"]]
            if [node["Resources"] for node in found] != [node["Resources"] for node in self._nodes]:
                self._capacities.clear()
            self._nodes, self._looked = found, time.monotonic()
        return self._nodes

    def resolve(self, resources: Resources) -> Resources:
        """Numbers for "auto": one GPU where there are any, and the node's cpus divided by its slots."""
        nodes = [node["Resources"] for node in self.nodes()]
        gpus = resources.gpus
        if gpus == "auto":
            gpus = 1.0 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
        cpus = resources.cpus
        if cpus == "auto":
            cpus = slots.cpus_per_slot(nodes, gpus)
        return dataclasses.replace(resources, gpus=gpus, cpus=cpus)

    def check(self, resources: Resources) -> None:
        """Raises ResourceError if no node could ever run a trial of this size."""
        wanted = self.resolve(resources)
        if self._capacity(wanted):
            return
        there = "; ".join(slots.described(node) for node in self.nodes()) or "no node is alive"
        asked = ", ".join(f"{name} {slots.number(value)}" for name, value in slots.bundle(wanted).items() if value)
        fix = "lower sweep.resources to what a node has"
        if wanted.gpus and not any(node["Resources"].get("GPU") for node in self.nodes()):
            fix = "sweep.resources.gpus=0 runs the trials on the CPU"
        labels = f" with labels {dict(wanted.labels)}" if wanted.labels else ""
        raise ResourceError(
            f"a trial asks for {asked}{labels}, and no node has that. Nodes: {there}", where="sweep.resources", fix=fix
        )

    def slots(self, resources: Resources) -> int:
        """How many trials of this size run at once."""
        return self._capacity(self.resolve(resources))

    def _capacity(self, wanted: Resources) -> int:
        nodes = self.nodes()
        key = repr(wanted)
        if key not in self._capacities:
            self._capacities[key] = sum(slots.fits(node, wanted) for node in nodes)
        return self._capacities[key]

    # ------------------------------------------------------------ the Executor protocol

    def free(self, resources: Resources, opened: Sequence[Resources] = ()) -> bool:
        """True while slots are empty, and for a few more: a slot that empties finds its next trial waiting."""
        load = sum(flight.share for flight in self._flights.values()) + sum(map(self._share, opened))
        share = self._share(resources)
        if load + share <= 1.0 + 1e-9:
            return True
        waiting = len(opened) + sum(not flight.started for flight in self._flights.values())
        return waiting < min(max(2, round(1 / share)), QUEUED)

    def _share(self, resources: Resources) -> float:
        """The part of the cluster that a trial of this size holds."""
        return 1 / max(1, self._capacity(self.resolve(resources)))

    def launch(self, order: Order, resources: Resources) -> None:
        wanted = self.resolve(resources)
        options: dict[str, Any] = {"num_gpus": wanted.gpus, "num_cpus": wanted.cpus, "name": order.trial_id}
        if wanted.memory:
            options["memory"] = wanted.memory
        if wanted.custom:
            options["resources"] = dict(wanted.custom)
        if wanted.labels:
            options["label_selector"] = dict(wanted.labels)
        stream = _ATTEMPT.options(**options).remote(order, self._board, self._packed_code(order), self._states(order))
        key = (order.trial_id, order.attempt)
        self._flights[key] = _Flight(stream, self._share(wanted))
        self._streams[stream] = key

    def _packed_code(self, order: Order) -> list[Any]:
        """A reference to the project's files, in a list so that Ray does not fetch it unasked."""
        if self.address is None or not order.import_path:
            return []
        if self._packed != order.import_path[0]:
            self._packed = order.import_path[0]
            self._code = [ray.put(provenance.pack(Path(self._packed)))]
        return self._code

    def _states(self, order: Order) -> dict[str, Any]:
        """References to the newest two checkpoints that the order names, likewise."""
        if self.address is None:
            return {}
        return {saved.path: ray.put((Path(order.folder) / saved.path).read_bytes()) for saved in order.restore[:2]}

    def poll(self, timeout: float) -> list[Batch]:
        if not self._flights:
            time.sleep(timeout)
            return []
        batches: list[Batch] = []
        self._cancel_queued()
        try:
            ready, _ = ray.wait(list(self._streams), num_returns=1, timeout=timeout, fetch_local=False)
            while ready and len(batches) < 1000:
                for stream in ready:
                    batches.extend(self._next(stream))
                if not self._streams:
                    break
                streams = list(self._streams)
                ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)
        except (RayError, ConnectionError, RuntimeError) as error:
            if ray.is_initialized() and not _head_lost(error):
                raise
            raise ClusterError(
                f"the Ray cluster went away: {ray_cluster.first_line(error)}",
                where=self.address or "embedded Ray",
                fix="start it again, then run the same command: finished trials are kept",
            ) from error
        return batches

    def _next(self, stream: Any) -> list[Batch]:
        """The next batch of this stream, or what its end means."""
        key = self._streams[stream]
        flight = self._flights[key]
        try:
            batch: Batch = ray.get(next(stream))
        except StopIteration:
            self._forget(key)
            return [] if flight.ended else [self._ended(key, flight, lost="worker", detail="its stream ended early")]
        except (RayError, RayTaskError) as error:
            self._forget(key)
            return [] if flight.ended else [self._ended(key, flight, **_loss(error))]
        flight.started = True
        flight.seq = batch.seq
        if any(isinstance(event, Ended) for event in batch.events):
            flight.ended = True
            flight.share = 0.0
        return [batch]

    def _ended(self, key: Key, flight: _Flight, **facts: Any) -> Batch:
        return Batch(*key, flight.seq + 1, (Ended(time.time(), **facts),))

    def _forget(self, key: Key) -> None:
        flight = self._flights.pop(key)
        del self._streams[flight.stream]

    def stop(self, trial_id: str, attempt: int, why: str) -> None:
        key = (trial_id, attempt)
        flight = self._flights.get(key)
        if flight is None:
            return
        self._board.ask.remote(key, why)
        if not flight.started and flight.cancel_at is None:
            flight.cancel_at = time.monotonic() + QUEUE_GRACE

    def _cancel_queued(self) -> None:
        """Cancel what was asked to end and still waits in Ray. What runs has heard of it from the board by now."""
        now = time.monotonic()
        for flight in self._flights.values():
            if flight.cancel_at is not None and now >= flight.cancel_at and not flight.started:
                ray.cancel(flight.stream)
                flight.cancel_at = None

    def kill(self) -> None:
        for flight in self._flights.values():
            ray.cancel(flight.stream, force=True)

    def close(self) -> None:
        try:
            ray.shutdown()
        finally:
            self.claim.release()


# ---------------------------------------------------------------- errors of Ray


def _loss(error: BaseException) -> dict[str, Any]:
    """What an error of Ray means for the attempt: facts of `Ended`."""
    if isinstance(error, TaskCancelledError):
        return {"asked": "cancelled"}
    if isinstance(error, OutOfMemoryError):
        return {"lost": "worker", "detail": "Ray's memory monitor killed the worker"}
    if isinstance(error, NodeDiedError):
        return {"lost": "node", "detail": ray_cluster.first_line(error)}
    if isinstance(error, WorkerCrashedError):
        return {"lost": "worker", "detail": "the Ray worker died"}
    return {"lost": "worker", "detail": ray_cluster.first_line(error)}


def _head_lost(error: BaseException) -> bool:
    return isinstance(error, ConnectionError) or "GCS" in str(error) or "raylet" in str(error).lower()
