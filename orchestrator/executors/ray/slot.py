"""What runs on a node: slots, Ray tasks that each hold their GPUs for one trial after another.

Ray places a slot and pins its GPUs. It begins with one order; after that it takes what waits on the board for slots
of its shape, and ends when nothing does, or when its lease is over: then Ray's queue decides again who is next.

A message through Ray costs more than a short trial's process. So while trials are short, a slot takes several orders
at once and sends their events together; as soon as one of them takes longer, it gives back those it has not begun.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pickle
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray

from orchestrator import naming
from orchestrator.decide import pace
from orchestrator.executors import gpus as gpu_driver
from orchestrator.files import scratch
from orchestrator.model.events import Batch, Ended, Noticed
from orchestrator.model.order import Order
from orchestrator.node import attempt
from orchestrator.node.shared import trial_paths
from orchestrator.node.shared.placement import Placement
from orchestrator.ports import ENDING
from orchestrator.provenance.code_copy import missing_data, unpack
from orchestrator.provenance.copy_watch import CopyWatch

Key = tuple[str, int]

LEASE = 30.0  # seconds after which a slot takes nothing more: others may wait for it in Ray
SHORT = 0.2  # seconds that orders taken at once may run for, all together
AT_ONCE = 16  # orders that a slot takes at once, at most


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """An order, pickled, as are the events on their way back: Ray's own pickler looks at every object from Python."""

    key: Key
    order: bytes


@dataclasses.dataclass(frozen=True)
class Parcel:
    """What a node that does not see the sweep's folder needs, as references, or why it cannot have it.

    They stand in containers, so that Ray does not fetch them unasked.
    """

    code: list[Any] = dataclasses.field(default_factory=list)
    states: dict[str, Any] = dataclasses.field(default_factory=dict)
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Needed:
    """Sent in place of a batch: this attempt's node does not see the sweep's folder, and waits for a parcel."""

    key: Key


class Board:
    """Where slots find further tasks and parcels, and attempts whether they are to end and how often to report."""

    def __init__(self) -> None:
        self._why: dict[Key, str] = {}
        self._waiting: dict[str, deque[Task]] = {}  # by shape of slot
        self._slots: dict[str, int] = {}  # how many there are, by shape
        self._taken: dict[str, list[Key]] = {}  # by slot
        self._parcels: dict[Key, asyncio.Future[Parcel]] = {}
        self._live = 0

    async def ask(self, key: Key, why: str) -> None:
        """Have an attempt end; the first reason counts."""
        self._why.setdefault(key, why)

    async def asked(self, key: Key) -> tuple[str | None, int]:
        """Why the attempt is to end, if it is, and how many are live."""
        return self._why.get(key), self._live

    async def set_live(self, live: int) -> None:
        self._live = live

    async def deliver(self, key: Key, parcel: Parcel) -> None:
        self._awaited(key).set_result(parcel)

    async def parcel(self, key: Key) -> Parcel:
        """Wait until it is delivered."""
        return await self._awaited(key)

    def _awaited(self, key: Key) -> asyncio.Future[Parcel]:
        return self._parcels.setdefault(key, asyncio.get_running_loop().create_future())

    async def offer(self, shape: str, tasks: list[Task], slots: int) -> None:
        """Put up tasks for the slots of this shape; `slots` is how many of them there are."""
        self._waiting.setdefault(shape, deque()).extend(tasks)
        self._slots[shape] = slots

    async def take(self, shape: str, slot: str, most: int) -> list[Task]:
        """What the slot is to run next: at most `most` tasks, and no more than its share of what waits."""
        waiting = self._waiting.get(shape, deque())
        wanted = [task for task in waiting if task.key not in self._why]
        taken = wanted[: max(1, min(most, len(wanted) // max(1, self._slots.get(shape, 1))))]
        for task in taken:
            waiting.remove(task)
        self._taken.setdefault(slot, []).extend(task.key for task in taken)
        return taken

    async def give_back(self, shape: str, slot: str, tasks: list[Task]) -> list[Key]:
        """Take back what the slot has not begun; returns those of it that nobody will run, since they are to end."""
        for task in tasks:
            self._taken[slot].remove(task.key)
        self._waiting[shape].extendleft(task for task in reversed(tasks) if task.key not in self._why)
        return [task.key for task in tasks if task.key in self._why]

    async def withdraw(self, keys: list[Key]) -> list[Key]:
        """Remove these from the board; returns those that were there, which no slot has taken."""
        found = []
        for shape, waiting in self._waiting.items():
            found += [task.key for task in waiting if task.key in keys]
            self._waiting[shape] = deque(task for task in waiting if task.key not in keys)
        return found

    async def leave(self, slot: str, first: Key) -> list[Key]:
        """Forget a slot that has ended; returns what it began with, and what it had taken."""
        begun = [first, *self._taken.pop(slot, [])]
        for key in begun:
            self._parcels.pop(key, None)
        return begun


def slot(task: Task, shape: str, name: str, board: Any) -> Iterator[bytes]:
    """Run attempts on this node, one after another; yields pickled lists of batches of events."""
    why, live = ray.get(board.asked.remote(task.key))
    if why:  # asked to end while it waited in Ray
        yield pickle.dumps([_cancelled(task.key)])
        return
    ids = tuple(str(number) for number in ray.get_gpu_ids())
    node_id = ray.get_runtime_context().get_node_id()
    here = Placement(socket.gethostname(), node_id, ids, gpu_driver.uuids(ids))
    until = time.monotonic() + LEASE
    tasks = [task]
    with _terminations() as terminated:
        run = partial(_attempt, here=here, signs=_Signs(board, live, terminated))
        give_back = partial(board.give_back.remote, shape, name)
        while tasks:
            begun, ended = time.monotonic(), 0
            for batches in _run_together(deque(tasks), run, give_back, terminated):
                ended += sum(map(_over, batches))
                yield pickle.dumps(batches)
            most = int(SHORT * ended / (time.monotonic() - begun))
            more = time.monotonic() < until and not terminated
            tasks = ray.get(board.take.remote(shape, name, max(1, min(most, AT_ONCE)))) if more else []


def _run_together(
    tasks: deque[Task],
    run: Callable[[Task], Iterator[Batch | Needed]],
    give_back: Callable[[list[Task]], Any],
    terminated: list[int],
) -> Iterator[list[Batch | Needed]]:
    """Run tasks that were taken at once, and send the events of short ones together.

    The first one that takes longer is the last one: the rest goes back to the board.
    """
    until = time.monotonic() + SHORT
    unsent: list[Batch | Needed] = []
    while tasks:
        for batch in run(tasks.popleft()):
            unsent.append(batch)
            if tasks and _over(batch) and time.monotonic() < until and not terminated:
                continue  # sent with the next one's
            if tasks:
                unsent += map(_cancelled, ray.get(give_back(list(tasks))))
                tasks.clear()
            yield unsent
            unsent = []


def _over(batch: Batch | Needed) -> bool:
    return isinstance(batch, Batch) and any(isinstance(event, Ended) for event in batch.events)


def _cancelled(key: Key) -> Batch:
    return Batch(*key, 0, (Ended(time.time(), asked="cancelled"),))


@contextmanager
def _terminations() -> Iterator[list[int]]:
    """The signals of `ENDING` that this worker gets: by default, they would end worker and trial at once."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in ENDING}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Signs:
    """What an attempt watches for while it runs: whether it is to end, and how many are live."""

    def __init__(self, board: Any, live: int, terminated: list[int]) -> None:
        self.board, self.terminated = board, terminated
        self._live = live
        self._pending: list[Any] = []

    def begin(self, task: Task, least: float) -> None:
        self._key, self._least = task.key, least
        self._pending.clear()
        self._due = time.monotonic() + self.interval()

    def interval(self) -> float:
        return pace.interval(self._least, self._live)

    def asked(self) -> str | None:
        """Ask the board now and then, never waiting for its answer."""
        if self.terminated:
            return "terminated"
        why: str | None = None
        if self._pending:
            if ray.wait(self._pending, timeout=0)[0]:
                why, self._live = ray.get(self._pending.pop())
                self._due = time.monotonic() + self.interval()
        elif time.monotonic() >= self._due:
            self._pending.append(self.board.asked.remote(self._key))
        return why


def _attempt(task: Task, here: Placement, signs: _Signs) -> Iterator[Batch | Needed]:
    order: Order = pickle.loads(task.order)
    if problem := gpu_driver.not_for_one_process(here.gpus):
        yield Batch(*task.key, 0, (Ended(time.time(), exit_code=1, detail=problem),))
        return
    parcel = Parcel()
    if not trial_paths.sees(order):
        yield Needed(task.key)
        parcel = ray.get(signs.board.parcel.remote(task.key))
        if parcel.problem:
            yield Batch(*task.key, 0, (Ended(time.time(), lost="worker", detail=parcel.problem),))
            return
    signs.begin(task, order.interval)
    copy = _copy_here(order, parcel.code)
    batches = attempt.run_attempt(
        copy.used_by(order),
        here,
        signs.asked,
        states={path: ray.get(state) for path, state in parcel.states.items()},
        interval=signs.interval,
    )
    yield from copy.with_notes(batches, here.node)


class _Copy:
    """The copy of the code that trials on this node import from; the node's own, if it does not see the sweep's."""

    def __init__(self, tree: Path, sent: list[Any]) -> None:
        self._tree = self._path = tree
        self._watch = None  # the coordinator watches its own
        if sent:
            self._path = scratch() / "code" / tree.name
            unpack(ray.get(sent[0]), self._path)  # also where it exists: a trial of another sweep may have changed it
            self._watch = CopyWatch(self._path)
        self._missing = [name for name in missing_data(self._path) if not name.startswith(".")]

    def used_by(self, order: Order) -> Order:
        """The order, importing from here."""
        moved = tuple(str(self._path / Path(entry).relative_to(self._tree)) for entry in order.import_path)
        return dataclasses.replace(order, import_path=moved)

    def with_notes(self, batches: Iterator[Batch], node: str) -> Iterator[Batch]:
        """The same batches; the first one says what data this node lacks, the last one what appeared in the copy."""
        told = []
        if self._missing:
            told.append(f"node {node} does not have {naming.some(self._missing)} beside the code: data is not sent")
        for batch in batches:
            if self._watch is not None and _over(batch):
                told += self._watch.news()
            yield dataclasses.replace(batch, events=(*map(Noticed, told), *batch.events)) if told else batch
            told.clear()


_copies: dict[str, _Copy] = {}  # by path


def _copy_here(order: Order, sent: list[Any]) -> _Copy:
    tree = order.import_path[0]
    if tree not in _copies:
        _copies[tree] = _Copy(Path(tree), sent)
    return _copies[tree]


BOARD: Any = ray.remote(num_cpus=0, max_concurrency=1000)(Board)
SLOT: Any = ray.remote(max_calls=0, max_retries=0, num_returns="streaming")(slot)
