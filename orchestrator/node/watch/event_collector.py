"""Collect what an attempt produces (output, journal entries, files) as events, and pack events into batches."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from orchestrator.model.events import Batch, Event, Failure, Filed, Logged, Noticed, Reported, Saved
from orchestrator.model.order import Order
from orchestrator.node.shared.journal import Dropped, Entered, Entry, JournalReader, Left, Unwritten, Used, UsedBefore
from orchestrator.node.shared.trial_paths import TrialPaths
from orchestrator.node.watch import file_transfer
from orchestrator.node.watch.output import Output

BATCH = 2**20  # bytes of output or reports in one batch
LONG_END = 60.0  # seconds between the end of `train` and that of its process after which the user is told


class EventCollector:
    """The events of one attempt."""

    def __init__(self, order: Order, paths: TrialPaths, journal: int, log: Output) -> None:
        self._order, self._paths, self._log = order, paths, log
        self._journal = JournalReader(journal)
        self._pending: list[Event] = []
        self._seq = 0
        self.failure: Failure | None = None  # what the trainer raised
        self.entered: Entered | None = None
        self.left: Left | None = None
        self._lingers = False  # told that it has left and goes on
        self._dropped: Counter[str] = Counter()  # rows that were left out, by reason
        self._unwritten: dict[int, Unwritten] = {}  # by process
        self._used: set[str] | None = set()  # None: that cannot be known
        self._told_used = False  # the trial has come to its end, and so has told all

    def add(self, event: Event) -> None:
        """Put an event before those that `new` finds next."""
        self._pending.append(event)

    def new(self) -> Iterator[Event]:
        """The events since the last call, up to one chunk of the journal."""
        yield from self._take_pending()
        for entry in self._journal.read() or ():
            yield from self._events_of(entry)
        yield from self._logged()
        if self.left is not None and not self._lingers and time.monotonic() - self.left.clock > LONG_END:
            self._lingers = True
            yield Noticed(
                f"`train` ended {LONG_END:.0f} s ago, and a thread or an exit handler of its process still runs"
            )

    def rest(self) -> Iterator[Event]:
        """All events that are left, once the attempt is over, but for files."""
        yield from self._take_pending()
        while (entries := self._journal.read()) is not None:
            for entry in entries:
                yield from self._events_of(entry)
        data = self._log.finish()
        for at in range(0, len(data), BATCH):
            yield Logged(data[at : at + BATCH])

    @property
    def unwritten(self) -> str:
        """What could not be written into the journal, in words; "" if all could be."""
        found = self._unwritten.values()
        count, reasons = sum(entry.lines for entry in found), sorted({entry.reason for entry in found})
        return f"{_rows(count)} lost on {socket.gethostname()}: {', '.join(reasons)}" if count else ""

    @property
    def used(self) -> str:
        """Which files of the copy of the code it used, as JSON; "" if that is not known."""
        known = self._told_used and self._used is not None and not self._unwritten
        return json.dumps(sorted(self._used or ())) if known else ""

    def losses(self) -> Iterator[Event]:
        """What was lost, for the user."""
        for reason, count in self._dropped.items():
            yield Noticed(f"{_rows(count)} lost: {reason}")
        if self.unwritten:
            yield Noticed(self.unwritten)

    def files(self, succeeded: bool) -> Iterator[Event]:
        """The files that the attempt has left, where the coordinator does not see them."""
        if not self._paths.shared:
            yield from file_transfer.file_events(self._paths, self._order, succeeded)

    def _take_pending(self) -> Iterator[Event]:
        yield from self._pending
        self._pending.clear()

    def _events_of(self, entry: Entry) -> Iterator[Event]:
        if isinstance(entry, Entered):
            self.entered = entry
        elif isinstance(entry, Left):
            self.left = entry
        elif isinstance(entry, Dropped):
            self._dropped[entry.reason] += 1
        elif isinstance(entry, Unwritten):
            self._unwritten[entry.pid] = entry
        elif isinstance(entry, Failure):
            self.failure = entry
        elif isinstance(entry, Used):
            self._told_used |= isinstance(entry, UsedBefore)
            self._used = None if self._used is None or entry.names is None else self._used.union(entry.names)
        elif isinstance(entry, Saved) and not self._paths.shared:
            yield from file_transfer.checkpoint_events(self._paths, self._order, entry)
        else:
            yield entry

    def _logged(self) -> Iterator[Event]:
        data = self._log.take()
        if data:
            yield Logged(data)

    def batches(self, events: Iterable[Event]) -> Iterator[Batch]:
        """The events in batches of at most about `BATCH` bytes; an event is never split."""
        batch: list[Event] = []
        size = 0
        for event in events:
            event_size = _size(event)
            if batch and size + event_size > BATCH:
                yield self._batch(batch)
                batch, size = [], 0
            batch.append(event)
            size += event_size
        if batch:
            yield self._batch(batch)

    def _batch(self, events: Iterable[Event]) -> Batch:
        batch = Batch(self._order.trial_id, self._order.attempt, self._seq, tuple(events))
        self._seq += 1
        return batch


def _rows(count: int) -> str:
    return "1 row was" if count == 1 else f"{count} rows were"


def _size(event: Event) -> int:
    if isinstance(event, (Logged, Filed)):
        return len(event.data)
    if isinstance(event, Reported):
        return sum(len(text) + 32 for _, _, text in event.rows)
    return 256
