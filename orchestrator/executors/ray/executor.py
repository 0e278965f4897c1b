"""Attempts in slots: Ray tasks, each pinned to the GPUs that Ray gives it.

A task is a streaming generator that yields lists of batches of events. Workers are reused (`max_calls=0`), so that
their warm zygotes are; Ray never retries by itself (`max_retries=0`): that is the manifest's to decide. While all
slots are occupied, further attempts wait on the board, and a slot that empties takes them without asking Ray.
"""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.errors import ClusterError
from orchestrator.executors import gpus as gpu_driver
from orchestrator.executors import sizes
from orchestrator.executors.ray import cluster
from orchestrator.executors.ray.folder import RayFolder
from orchestrator.executors.ray.sender import Sender
from orchestrator.executors.ray.slot import BOARD, SLOT, Key, Needed, Task
from orchestrator.executors.ray.watch import ClusterWatch
from orchestrator.model.events import Batch, Ended, Started
from orchestrator.model.order import Order
from orchestrator.model.sweep import Resources

QUEUE_GRACE = 1.0  # seconds in which an attempt that has just started says so
QUEUED = 64  # attempts that may wait at most, so that no slot idles between two trials
PACE = 0.5  # seconds: as many wait as have ended in that time, or one for each slot


@dataclasses.dataclass
class _Flight:
    """One attempt that has not ended."""

    task: Task
    wanted: Resources
    options: dict[str, Any]  # what Ray is asked for
    share: float  # of the cluster that it holds
    offered: bool = False  # on the board, or taken from there
    seq: int = -1
    node_id: str = ""  # where it runs
    drained: bool = False  # was asked to end since its node is being drained
    started: bool = False
    cancel_at: float | None = None  # asked to end: when it is taken out of its queue if it has not started

    @property
    def shape(self) -> str:
        """Attempts of one shape can run in one slot."""
        return repr(self.options)


@dataclasses.dataclass(frozen=True)
class _Slot:
    """A task of Ray's."""

    name: str
    shape: str
    first: Key  # the attempt that it began with


class RayExecutor:
    """Runs attempts on a Ray cluster: an embedded one on loopback, or one that runs already."""

    def __init__(self, address: str | None, claim: gpu_driver.Claim) -> None:
        """`address` is what `environment.prepare` returned; without one, Ray is started here on the claimed GPUs.

        Raises ClusterError if the cluster cannot be reached.
        """
        self.address = address
        self._claim = claim
        self._notices: list[str] = []
        self._folder: RayFolder | None = None
        if self.address is None:
            self._folder = RayFolder.make()
            self._notices += filter(None, [self._folder.note])
            cluster.start_embedded(claim.ids, self._folder.path)
        else:
            cluster.join(self.address)
        self._watch = ClusterWatch(cluster.head(), cluster.look)
        self._board = _board_here()
        self._sender = Sender(self._board)
        self._flights: dict[Key, _Flight] = {}
        self._slots: dict[Any, _Slot] = {}  # by stream
        self._numbers = itertools.count()
        self._live = 0  # attempts, as the board knows
        self._problem = ""  # of the watch, as it was told
        self._sizes = sizes.Sizes(self._watch.latest.nodes)
        self._offers: dict[str, list[Task]] = {}  # to be put on the board, by shape
        self._ends: deque[float] = deque(maxlen=QUEUED)  # when the latest attempts have ended

    # ------------------------------------------------------------ resources

    def notices(self) -> list[str]:
        found, self._notices = self._notices, []
        return found

    def _look_around(self) -> None:
        """See what the watch has found out, and act upon it."""
        if self._watch.head_lost:
            raise self._went_away(self._watch.problem or "its head does not answer")
        if self._watch.problem != self._problem:
            self._problem = self._watch.problem
            self._notices += filter(None, [self._problem])
        if self._sizes.use(self._watch.latest.nodes):
            self._tell_of_room()
        self._end_drained()

    def _tell_of_room(self) -> None:
        """Say what waits for a node that is not there."""
        waiting = [flight.wanted for flight in self._flights.values() if not flight.started]
        self._notices += self._sizes.changes_of_room(waiting)

    def _end_drained(self) -> None:
        """Have what runs on a node that is being drained save and end: it goes on elsewhere."""
        for key, flight in self._flights.items():
            if flight.node_id in self._watch.latest.draining and not flight.drained:
                flight.drained = True
                self._board.ask.remote(key, "drained")

    def resolve(self, resources: Resources) -> Resources:
        return self._sizes.of(resources)[0]

    def check(self, resources: Resources) -> None:
        wanted, capacity = self._sizes.of(resources)
        if not capacity:
            raise sizes.refusal(self._sizes.nodes, wanted)

    # ------------------------------------------------------------ the Executor protocol

    def free(self, resources: Resources, opened: Sequence[Resources] = ()) -> bool:
        """True while there are empty slots, and for a few more: a slot that empties finds its next trial waiting."""
        share = self._share(resources)
        recent = sum(end > time.monotonic() - PACE for end in self._ends)
        more = min(max(2, round(1 / share), recent), QUEUED) * share
        return self._room(share + sum(map(self._share, opened)) - more)

    def _room(self, share: float) -> bool:
        """Whether our attempts leave this part of the cluster free."""
        return sum(flight.share for flight in self._flights.values()) + share <= 1.0 + 1e-9

    def _share(self, resources: Resources) -> float:
        """The part of the cluster that a trial of this size holds."""
        return 1 / max(1, self._sizes.of(resources)[1])

    def launch(self, order: Order, resources: Resources) -> None:
        wanted = self.resolve(resources)
        key = (order.trial_id, order.attempt)
        task = Task(key, pickle.dumps(order))
        flight = _Flight(task, wanted, _options(wanted), self._share(wanted))
        room = self._room(flight.share)
        self._flights[task.key] = flight
        if room or all(slot.shape != flight.shape for slot in self._slots.values()):
            self._submit(flight)
        else:
            flight.offered = True
            self._offers.setdefault(flight.shape, []).append(task)
        if not self._sizes.of(resources)[1]:
            self._tell_of_room()

    def _offer(self) -> None:
        """Put on the board what was launched since the last time."""
        for shape, tasks in self._offers.items():
            self._board.offer.remote(shape, tasks, sum(slot.shape == shape for slot in self._slots.values()))
        self._offers.clear()

    def _set_pace(self) -> None:
        """Tell the board when the number of live attempts has changed by more than a tenth: they report accordingly."""
        live = len(self._slots)
        if abs(live - self._live) > self._live / 10:
            self._live = live
            self._board.set_live.remote(live)

    def _submit(self, flight: _Flight) -> None:
        """Have Ray find a slot for it."""
        slot = _Slot(str(next(self._numbers)), flight.shape, flight.task.key)
        stream = SLOT.options(**flight.options).remote(flight.task, slot.shape, slot.name, self._board)
        flight.offered = False
        self._slots[stream] = slot

    def poll(self, timeout: float) -> list[Batch]:
        batches: list[Batch] = []
        try:
            self._look_around()
            if not self._slots:
                time.sleep(timeout)
                return []
            self._offer()
            self._set_pace()
            batches.extend(self._cancel_queued())
            ready, _ = ray.wait(list(self._slots), num_returns=1, timeout=timeout, fetch_local=False)
            while ready and len(batches) < 1000:
                for stream in ready:
                    batches.extend(self._next(stream))
                if not self._slots:
                    break
                streams = list(self._slots)
                ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)
        except (RayError, ConnectionError, RuntimeError) as error:
            if ray.is_initialized() and not _head_lost(error):
                raise
            raise self._went_away(cluster.first_line(error)) from error
        return batches

    def _went_away(self, why: str) -> ClusterError:
        return ClusterError(
            f"the Ray cluster went away: {why}",
            where=self.address or "embedded Ray",
            fix="start it again, then run the same command: finished trials are kept",
        )

    def _answer(self, ref: Any) -> Any:
        """The board's answer. If the head is lost, the board may be as well, and Ray would wait for ever."""
        while not ray.wait([ref], timeout=1.0)[0]:
            self._look_around()
        return ray.get(ref)

    def _next(self, stream: Any) -> list[Batch]:
        """The next batches of this stream, or what its end means."""
        try:
            found: list[Batch | Needed] = pickle.loads(ray.get(next(stream)))
        except StopIteration:
            return self._left(stream, lost="worker", detail="its stream ended early")
        except (RayError, RayTaskError) as error:
            return self._left(stream, **_loss(error))
        batches = [each for each in found if isinstance(each, Batch)]
        for need in found:
            if isinstance(need, Needed):
                self._sender.send(self._flights[need.key].task)
        for batch in batches:
            key = (batch.trial_id, batch.attempt)
            flight = self._flights[key]
            flight.started = True
            flight.seq = batch.seq
            for event in batch.events:
                if isinstance(event, Started):
                    flight.node_id = event.node_id
                    self._notices += self._sizes.started(flight.wanted)
                elif isinstance(event, Ended):
                    del self._flights[key]
                    self._ends.append(time.monotonic())
        return batches

    def _left(self, stream: Any, **facts: Any) -> list[Batch]:
        """A slot has ended, and so has every attempt that it had begun; what waits finds another slot."""
        slot = self._slots.pop(stream)
        begun = self._answer(self._board.leave.remote(slot.name, slot.first))
        batches = [self._ended(key, **facts) for key in begun if key in self._flights]
        waiting = self._withdrawn(key for key, flight in self._flights.items() if flight.shape == slot.shape)
        others = any(other.shape == slot.shape for other in self._slots.values())
        for number, key in enumerate(waiting):
            if others and number:
                self._offers.setdefault(slot.shape, []).append(self._flights[key].task)
            else:
                self._submit(self._flights[key])
        return batches

    def _withdrawn(self, keys: Iterable[Key]) -> list[Key]:
        """Take these attempts off the board; returns those that were still there."""
        self._offer()
        offered = [key for key in keys if self._flights[key].offered and not self._flights[key].started]
        found: list[Key] = self._answer(self._board.withdraw.remote(offered)) if offered else []
        return found

    def _ended(self, key: Key, **facts: Any) -> Batch:
        return Batch(*key, self._flights.pop(key).seq + 1, (Ended(time.time(), **facts),))

    def stop(self, trial_id: str, attempt: int, why: str) -> None:
        key = (trial_id, attempt)
        flight = self._flights.get(key)
        if flight is None:
            return
        self._board.ask.remote(key, why)
        if not flight.started and flight.cancel_at is None:
            flight.cancel_at = time.monotonic() + (0.0 if flight.offered else QUEUE_GRACE)

    def _cancel_queued(self) -> list[Batch]:
        """Cancel what was asked to end and still waits. What runs learns of it from the board."""
        now = time.monotonic()
        due = {
            key: flight
            for key, flight in self._flights.items()
            if flight.cancel_at is not None and now >= flight.cancel_at and not flight.started
        }
        for flight in due.values():
            flight.cancel_at = None
        for stream, slot in self._slots.items():
            if slot.first in due:
                ray.cancel(stream)
        return [self._ended(key, asked="cancelled") for key in self._withdrawn(due)]

    def kill(self) -> None:
        for flight in self._flights.values():  # what waits must not start in place of what is killed
            if not flight.started:
                flight.cancel_at = 0.0
        for stream in self._slots:
            ray.cancel(stream, force=True)

    def close(self) -> None:
        self._watch.close()
        try:
            if not self._watch.head_lost:  # Ray would wait for it
                ray.shutdown()
        finally:
            if self._folder is not None:
                self._folder.remove()
            self._claim.release()


def _board_here() -> Any:
    """A board on the coordinator's node, so that no other node's loss takes it along.

    Ray lets a random node place an actor that needs no resources, and a node that has just joined does not know ours
    yet. An actor that needs a little of our node is placed by ours.
    """
    here = ray.get_runtime_context().get_node_id()
    (address,) = (node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == here)
    strategy = NodeAffinitySchedulingStrategy(here, soft=False)
    return BOARD.options(scheduling_strategy=strategy, resources={f"node:{address}": 0.001}).remote()


def _options(wanted: Resources) -> dict[str, Any]:
    """What Ray is asked for."""
    options: dict[str, Any] = {"num_gpus": wanted.gpus, "num_cpus": wanted.cpus, "name": "slot"}
    if wanted.memory:
        options["memory"] = wanted.memory
    if wanted.custom:
        options["resources"] = dict(wanted.custom)
    if wanted.labels:
        options["label_selector"] = dict(wanted.labels)
    return options


# ---------------------------------------------------------------- errors of Ray


def _loss(error: BaseException) -> dict[str, Any]:
    """What an error of Ray means for the attempt: facts of `Ended`."""
    if isinstance(error, TaskCancelledError):
        return {"asked": "cancelled"}
    if isinstance(error, OutOfMemoryError):
        return {"lost": "worker", "detail": "Ray's memory monitor killed the worker"}
    if isinstance(error, NodeDiedError):
        return {"lost": "node", "detail": cluster.first_line(error)}
    if isinstance(error, WorkerCrashedError):
        return {"lost": "worker", "detail": "the Ray worker died"}
    return {"lost": "worker", "detail": cluster.first_line(error)}


def _head_lost(error: BaseException) -> bool:
    return isinstance(error, (ConnectionError, RayActorError)) or "GCS" in str(error) or "raylet" in str(error).lower()
