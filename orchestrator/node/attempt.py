"""Supervise one attempt, as a generator of batches of events.

One thread, one loop: it waits for the zygote, for output and for the next batch, whichever comes first. The
exit of a trial is acted on at once. When the generator is closed early, the attempt's processes end with it.
"""

from __future__ import annotations

import os
import selectors
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from orchestrator.model.events import Batch, Ended, Event, Failure, Filed, Logged, Noticed, Reported, Saved, Started
from orchestrator.model.order import Order
from orchestrator.node.inside import checkpoint, stack
from orchestrator.node.inside.journal import Called, Entry, JournalReader
from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.node.shared import trial_paths
from orchestrator.node.shared.placement import Placement
from orchestrator.node.watch import file_transfer, memory
from orchestrator.node.watch.limits import CAUSES, AttemptLimits
from orchestrator.node.watch.output import Output

BATCH = 2**20  # bytes of output or reports in one batch
_HOLD = 0.05  # seconds the first batch may wait: a trial that is shorter needs one message in all
_STACK = 2**20  # bytes of stacks that are read
_ASK = 0.1  # seconds between two looks at `asked`

_zygote_pool: ZygotePool | None = None


def run_attempt(
    order: Order,
    placement: Placement,
    asked: Callable[[], str | None],
    zygote_pool: ZygotePool | None = None,
    states: Mapping[str, bytes] = MappingProxyType({}),
) -> Iterator[Batch]:
    """Run one attempt from `Started` to `Ended`, its process tree being empty by then.

    `asked` is polled and must not block; a reason ends the trial: SIGTERM, the order's grace, SIGKILL. So do the
    order's limits.
    `states` are contents of what `order.restore` names, by path, for a node that does not see the sweep's folder. The
    zygote stays for the next attempt in `zygote_pool`, which is this process's own unless one is given.
    """
    global _zygote_pool
    if zygote_pool is None:
        zygote_pool = _zygote_pool = _zygote_pool or ZygotePool()
    attempt = _Attempt(order, placement, asked, zygote_pool)
    try:
        checkpoint.discard_drafts(attempt.paths.checkpoints)  # of an attempt whose supervisor died with it
        file_transfer.receive(attempt.paths, states)
        yield from attempt.batches()
    finally:
        attempt.close()
        checkpoint.discard_drafts(attempt.paths.checkpoints)


class _Attempt:
    def __init__(
        self, order: Order, placement: Placement, asked: Callable[[], str | None], zygote_pool: ZygotePool
    ) -> None:
        self.order, self.placement, self.asked, self.zygote_pool = order, placement, asked, zygote_pool
        self.paths = trial_paths.paths_of(order)
        self.seq = 0
        self.pid: int | None = None
        self.why: str | None = None  # we end it
        self.evidence = ""
        self.kill_at: float | None = None
        self.end: dict[str, Any] | None = None  # fields of Ended, once it is over
        self.failure: Failure | None = None
        self.times: dict[str, float] = {}
        self.pending: list[Event] = []
        self.log = Output(order.log_cap)
        self.journal_fd = _journal()
        self.stack_fd = os.memfd_create("stack")
        self.journal = JournalReader(self.journal_fd)
        self.limits = AttemptLimits(order, self.journal_fd)
        self.selector = selectors.PollSelector()  # two files: no use for epoll
        self.selector.register(self.log.fd, selectors.EVENT_READ)
        self.memory = memory.MemoryWatch()
        self.ooms = memory.oom_kills()

    # ------------------------------------------------------------ the loop

    def batches(self) -> Iterator[Batch]:
        self._launch()
        due: float | None = None
        asked_at = 0.0
        while self.end is None:
            now = time.monotonic()
            if now >= asked_at:
                asked_at = now + _ASK
                self._heed(self.asked())
                self._heed(*self.limits.exceeded(now) or (None,))
                self._spare_the_node(now)
            self._kill_if_due(now)
            if due is None and self.pid is not None:
                due = now + min(_HOLD, self.order.interval)
            if self.end is None and due is not None and (now >= due or self.log.size >= BATCH):
                yield from self._batches_of(self._gather())
                due = now + self.order.interval
            self._wait(min(moment for moment in (asked_at, due, self.kill_at) if moment is not None))
        self.log.drain()
        yield from self._batches_of(self._gather())

    def _launch(self) -> None:
        self.zygote = self.zygote_pool.zygote(self.order, self.placement.gpus)
        self.zygote.run(self.order, self.placement.gpus, self.paths, self.journal_fd, self.stack_fd, self.log.theirs)
        self.selector.register(self.zygote.socket, selectors.EVENT_READ)
        self.limits.begin(time.monotonic())

    def _wait(self, until: float) -> None:
        if self.end is not None:
            return
        for key, _ in self.selector.select(max(0.0, until - time.monotonic())):
            if key.fd != self.log.fd:
                self._hear(self.zygote.receive())
            elif not self.log.read():  # readable and empty: everyone has closed it
                self.selector.unregister(self.log.fd)

    def _hear(self, message: dict[str, Any] | None) -> None:
        if message is None:
            if self.pid is None and self._launch_again():
                return
            self.zygote_pool.close()
            self.end = {"lost": "worker", "detail": "the process that starts trials went away"}
        elif "pid" in message:
            self.pid = message["pid"]
            self.log.given()
            self.memory.begin(message["pid"])
            self.limits.begin(time.monotonic())
            self.pending.append(self._started(message["pid"]))
        elif "unsafe" in message:
            self._start_fresh(message["unsafe"])
        elif "ended" in message:
            self.end = self._status(message["ended"], message["peak"])
        elif "died" in message:
            self.zygote_pool.close()
            status = self._status(*message["died"])
            if self.pid is None:
                self.end = {**status, "detail": "while the trainer's module was imported"}
            else:
                self.end = {"lost": "worker", "detail": f"the process that starts trials ended: {status}"}

    def _started(self, pid: int) -> Started:
        place = self.placement
        method = self.zygote_pool.method(self.order, place.gpus)
        return Started(
            time.time(), place.node, place.node_id, pid, place.gpus, place.gpu_uuids, self.order.threads, method
        )

    def _start_fresh(self, why: str) -> None:
        module = self.order.trainer.module
        self.pending.append(
            Noticed(f"{module} cannot be forked: {why}; its trials are started as fresh processes (slower)")
        )
        self.selector.unregister(self.zygote.socket)
        self.zygote_pool.unsafe(self.order, self.placement.gpus, why)
        self._launch()

    def _launch_again(self) -> bool:
        """From a zygote of our own, if a shared one has gone before there was a trial."""
        gone = self.zygote.socket
        if not self.zygote_pool.alone(self.order, self.placement.gpus):
            return False
        self.selector.unregister(gone)
        self._launch()
        return True

    # ------------------------------------------------------------ ending it

    def _heed(self, why: str | None, evidence: str = "") -> None:
        """Begin to end the attempt, for the first reason given."""
        if why is None or self.why is not None:
            return
        self.why, self.evidence = why, evidence
        if self.pid is None:  # still importing: there is nothing to save
            if why in CAUSES:  # of others too, perhaps, which would keep it alive
                self.zygote_pool.alone(self.order, self.placement.gpus)
            else:
                self.zygote_pool.close()
            self.evidence += ", while the trainer's module was imported" if evidence else ""
            self.end = {}
        else:
            if why in CAUSES and stack.answers(self.pid):  # where is it?
                self.zygote.signal(stack.SIGNAL)
            self.zygote.signal(signal.SIGTERM)
            self.kill_at = time.monotonic() + self.order.grace

    def _spare_the_node(self, now: float) -> None:
        """End the attempt at once if its memory would take the node along; there is none left to save with."""
        evidence = self.memory.guilty(now)
        if evidence is not None:
            self._heed("oom", evidence)
            self.kill_at = now

    def _kill_if_due(self, now: float) -> None:
        if self.end is None and self.kill_at is not None and now >= self.kill_at:
            self.zygote.signal(signal.SIGKILL)
            self.kill_at = None

    def _status(self, status: int, peak: int) -> dict[str, Any]:
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            return {"exit_code": code}
        detail = ""
        if code == -signal.SIGKILL and self.why is None:
            ooms = memory.oom_kills() - self.ooms
            detail = f"peak memory {peak / 2**20:.0f} MiB"
            if ooms > 0:
                detail += f"; out of memory: the kernel killed {ooms} process(es) of this node meanwhile"
                return {"signal": -code, "detail": detail, "oom": True}
        return {"signal": -code, "detail": detail}

    def close(self) -> None:
        """Leave nothing behind; an attempt that is not over ends here."""
        if self.end is None:
            self.zygote_pool.close()
        self.memory.close()
        self.selector.close()
        self.log.close()
        os.close(self.journal_fd)
        os.close(self.stack_fd)

    # ------------------------------------------------------------ what is told

    def _gather(self) -> Iterator[Event]:
        """What has come in since the last batch; once the attempt is over, all that is left, and `Ended`."""
        yield from self.pending
        self.pending = []
        entries = self.journal.read()
        while entries is not None:
            for entry in entries:
                yield from self._told(entry)
            entries = self.journal.read() if self.end is not None else None
        data = self.log.take()
        if data:
            yield Logged(data)
        if self.end is not None:
            if not self.paths.shared:
                yield from file_transfer.files(self.paths, self.order, self.end.get("exit_code") == 0)
            yield self._ended(self.end)

    def _told(self, entry: Entry) -> Iterator[Event]:
        if isinstance(entry, Called):
            self.times[entry.kind] = entry.at
        elif isinstance(entry, Failure):
            self.failure = entry
        elif isinstance(entry, Saved) and not self.paths.shared:
            yield from file_transfer.checkpoint(self.paths, self.order, entry)
        else:
            yield entry

    def _ended(self, end: dict[str, Any]) -> Ended:
        if end.get("exit_code") == 0 and "E" not in self.times and self.why is None:
            end["exit_code"] = 1  # a module that leaves with 0 has trained nothing
            text = "the process ended before the trainer was called, while its module was imported"
            self.failure = Failure("SystemExit", text, "", text)
        if self.evidence:
            end["detail"] = self.evidence
            end["stack"], end["place"] = self._stack()
        return Ended(
            at=time.time(),
            failure=self.failure,
            asked=self.why,
            entered=self.times.get("E"),
            left=self.times.get("L"),
            **end,
        )

    def _stack(self) -> tuple[str, str]:
        """Where the trial was when we ended it."""
        written = os.pread(self.stack_fd, _STACK, 0).decode("ascii", "replace")
        return stack.told(written, (*self.order.import_path, self.order.cwd))

    def _batches_of(self, events: Iterator[Event]) -> Iterator[Batch]:
        """The events in batches of about `BATCH` bytes at most; an event is never split."""
        group: list[Event] = []
        size = 0
        for event in events:
            weight = _weight(event)
            if group and size + weight > BATCH:
                yield self._batch(group)
                group, size = [], 0
            group.append(event)
            size += weight
        if group:
            yield self._batch(group)

    def _batch(self, events: Sequence[Event]) -> Batch:
        batch = Batch(self.order.trial_id, self.order.attempt, self.seq, tuple(events))
        self.seq += 1
        return batch


def _weight(event: Event) -> int:
    if isinstance(event, (Logged, Filed)):
        return len(event.data)
    if isinstance(event, Reported):
        return sum(len(text) + 32 for _, _, text in event.rows)
    return 256


def _journal() -> int:
    """A file without a name: it goes when the last process that has it open does. On disk, since it may grow."""
    try:
        return os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:  # not every file system can do that
        with tempfile.TemporaryFile(mode="a+b") as file:
            return os.dup(file.fileno())
