"""Supervise one attempt, as a generator of batches of events.

One thread runs one loop. It waits for whatever comes first: a message of the zygote, output of the trial, or the time
of the next batch. So the exit of a trial is handled at once. If the generator is closed early, the attempt's processes
end with it.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from orchestrator.decide.lifecycle import classify
from orchestrator.model.events import Batch, Ended, Event, Failure, Noticed, Started
from orchestrator.model.order import Order
from orchestrator.model.sweep import State
from orchestrator.node.inside import checkpoint, stack
from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.node.shared import memory_file, trial_paths
from orchestrator.node.shared.placement import Placement
from orchestrator.node.shared.steady_clock import steady
from orchestrator.node.watch import file_transfer
from orchestrator.node.watch.event_collector import BATCH, EventCollector
from orchestrator.node.watch.limits import CAUSES
from orchestrator.node.watch.memory import NodeMemory
from orchestrator.node.watch.output import Output
from orchestrator.node.watch.stop_conditions import Stop, StopConditions

_FIRST_BATCH = 0.05  # seconds until the first batch: a shorter trial needs only one
_MAX_STACKS = 2**20  # bytes of stacks that are read
_STOP_INTERVAL = 0.1  # seconds between two checks of the stop conditions

_zygote_pool: ZygotePool | None = None


def run_attempt(
    order: Order,
    placement: Placement,
    asked: Callable[[], str | None],
    zygote_pool: ZygotePool | None = None,
    states: Mapping[str, bytes] = MappingProxyType({}),
    node_memory: NodeMemory | None = None,
    interval: Callable[[], float] | None = None,
) -> Iterator[Batch]:
    """Run one attempt, from `Started` to `Ended`. When `Ended` comes, no process of the attempt is left.

    `asked` is polled and must not block. If it returns a reason, the trial is ended: SIGTERM, the order's grace time,
    SIGKILL. The order's limits end it in the same way. `states` are files for a node that does not see the sweep's
    folder: the checkpoints that `order.restore` names and the files of `run.dir`, by path in the trial's folder. The
    zygote stays in `zygote_pool` for the next attempt; without that argument, in a pool of this process. `interval`:
    seconds until the next batch, asked anew after each; the order's by default.
    """
    global _zygote_pool
    if zygote_pool is None:
        zygote_pool = _zygote_pool = _zygote_pool or ZygotePool()
    attempt = _Attempt(order, placement, asked, zygote_pool, node_memory or NodeMemory())
    if interval is not None:
        attempt.interval = interval
    try:
        checkpoint.discard_drafts(attempt.paths.checkpoints)  # of an attempt whose supervisor was killed
        file_transfer.write_files(attempt.paths, states)
        yield from attempt.batches()
    finally:
        attempt.close()
        checkpoint.discard_drafts(attempt.paths.checkpoints)


class _Attempt:
    def __init__(
        self,
        order: Order,
        placement: Placement,
        asked: Callable[[], str | None],
        zygote_pool: ZygotePool,
        memory: NodeMemory,
    ) -> None:
        self.order, self.placement, self.zygote_pool, self.memory = order, placement, zygote_pool, memory
        self.interval: Callable[[], float] = lambda: order.interval
        self.paths = trial_paths.paths_of(order)
        self.journal_fd = memory_file.create("journal")
        self.stack_fd = os.memfd_create("stack")
        self.log = Output(order.log_cap)
        self.events = EventCollector(order, self.paths, self.journal_fd, self.log)
        self.conditions = StopConditions(order, asked, self.journal_fd, memory)
        self.clock = steady()
        self.pid: int | None = None
        self.stop: Stop | None = None  # the first condition that was met
        self.asked_at: float | None = None  # when the trial was asked to end for that; of `time.monotonic`
        self.kill_at: float | None = None
        self.end: dict[str, Any] | None = None  # fields of `Ended`, once the attempt is over
        self.selector = selectors.PollSelector()  # for two files, epoll would only cost more
        self.selector.register(self.log.fd, selectors.EVENT_READ)
        self.oom_kills_before = memory.oom_kills()

    # ------------------------------------------------------------ the loop

    def batches(self) -> Iterator[Batch]:
        self._launch()
        batch_due: float | None = None
        check_due = 0.0
        while self.end is None:
            now = time.monotonic()
            if now >= check_due:
                check_due = now + _STOP_INTERVAL
                for stop in self.conditions.met(now):
                    self._end_early(stop, now)
            self._kill_if_due(now)
            if batch_due is None and self.pid is not None:
                batch_due = now + min(_FIRST_BATCH, self.interval())
            if self.end is None and batch_due is not None and (now >= batch_due or self.log.size >= BATCH):
                yield from self.events.batches(self.events.new())
                batch_due = now + self.interval()
            self._wait(min(moment for moment in (check_due, batch_due, self.kill_at) if moment is not None))
        yield from self.events.batches(self._last_events(self.end))

    def _launch(self) -> None:
        self.zygote = self.zygote_pool.zygote(self.order, self.placement.gpus)
        self.zygote.run(self.order, self.placement.gpus, self.paths, self.journal_fd, self.stack_fd, self.log.write_fd)
        self.selector.register(self.zygote.socket, selectors.EVENT_READ)
        self.conditions.launched(time.monotonic())

    def _wait(self, until: float) -> None:
        if self.end is not None:
            return
        for key, _ in self.selector.select(max(0.0, until - time.monotonic())):
            if key.fd != self.log.fd:
                self._handle_message(self.zygote.receive())
            elif not self.log.read():  # readable but empty: all writers have closed it
                self.selector.unregister(self.log.fd)

    def _handle_message(self, message: dict[str, Any] | None) -> None:
        if message is None:
            if self.pid is None and self._launch_unshared():
                return
            self.zygote_pool.close()
            self.end = {"lost": "worker", "detail": "the process that starts trials went away"}
        elif "pid" in message:
            self.pid = message["pid"]
            self.log.close_write_end()
            self.conditions.started(message["pid"], time.monotonic())
            self.events.add(self._started(message["pid"]))
        elif "unsafe" in message:
            self._launch_fresh_process(message["unsafe"])
        elif "ended" in message:
            self.end = self._exit_fields(message["ended"], message["peak"])
        elif "died" in message:
            self.zygote_pool.close()
            fields = self._exit_fields(*message["died"])
            if self.pid is None:
                self.end = {**fields, "detail": "while the trainer's module was imported"}
            else:
                detail = f"the process that starts trials ended with {_in_words(**fields)}"
                self.end = {"lost": "worker", "detail": detail}

    def _started(self, pid: int) -> Started:
        at, order, method = self.placement, self.order, self.zygote_pool.method(self.order, self.placement.gpus)
        return Started(self.clock(), at.node, at.node_id, pid, at.gpus, at.gpu_uuids, order.threads, method)

    def _launch_fresh_process(self, why: str) -> None:
        """The zygote cannot be forked. What its import has printed, that of the fresh process prints too."""
        module = self.order.trainer.module
        notice = f"{module} cannot be forked: {why}; its trials are started as fresh processes (slower)"
        self.events.add(Noticed(notice))
        self.selector.unregister(self.zygote.socket)
        self.zygote_pool.mark_unsafe(self.order, self.placement.gpus, why)
        self.log.forget()
        self._launch()

    def _launch_unshared(self) -> bool:
        """Launch from a zygote of our own, if a shared one was lost before it started the trial."""
        lost = self.zygote.socket
        if not self.zygote_pool.stop_sharing(self.order, self.placement.gpus):
            return False
        self.selector.unregister(lost)
        self._launch()
        return True

    # ------------------------------------------------------------ ending the attempt

    def _end_early(self, stop: Stop, now: float) -> None:
        if self.stop is None:
            self.stop = stop
            if self.pid is None:
                self._end_import(stop)
                return
            if stop.reason in CAUSES and stack.has_handler(self.pid):
                self.zygote.signal(stack.SIGNAL)
            self.asked_at = time.monotonic()
            if not stop.at_once:
                self.zygote.signal(signal.SIGTERM)
            self.kill_at = now + self.order.grace
        if stop.at_once:
            self.kill_at = now

    def _end_import(self, stop: Stop) -> None:
        """The trainer's module is still being imported, so there is no trial yet, and nothing to save."""
        if stop.reason in CAUSES:  # a shared zygote would live on for other workers that wait for the same import
            self.zygote_pool.stop_sharing(self.order, self.placement.gpus)
            self.stop = stop._replace(evidence=f"{stop.evidence}, while the trainer's module was imported")
        else:
            self.zygote_pool.close()
        self.end = {}

    def _kill_if_due(self, now: float) -> None:
        if self.end is None and self.kill_at is not None and now >= self.kill_at:
            self.zygote.signal(signal.SIGKILL)
            self.kill_at = None

    def _exit_fields(self, status: int, peak: int) -> dict[str, Any]:
        """Fields of `Ended`, from a wait status and the peak memory in bytes."""
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            return {"exit_code": code}
        if code != -signal.SIGKILL or self.stop is not None:
            return {"signal": -code, "detail": ""}
        detail = f"peak memory {peak / 2**20:.0f} MiB"
        kills = self.memory.oom_kills() - self.oom_kills_before
        if kills <= 0:
            return {"signal": -code, "detail": detail}
        detail += f"; out of memory: the kernel killed {kills} process(es) of this node meanwhile"
        return {"signal": -code, "detail": detail, "oom": True}

    def close(self) -> None:
        """Leave nothing behind. An attempt that is not over ends here."""
        if self.end is None:
            self.zygote_pool.close()
        self.conditions.close()
        self.selector.close()
        self.log.close()
        os.close(self.journal_fd)
        os.close(self.stack_fd)

    # ------------------------------------------------------------ its last events

    def _last_events(self, end: dict[str, Any]) -> Iterator[Event]:
        yield from self.events.rest()
        yield from self.events.losses()
        ended = self._ended(end)
        yield from self.events.files(succeeded=classify(ended).state is State.SUCCEEDED)
        if ended.asked_late and self.stop is not None and self.stop.evidence:
            yield Noticed(f"`train` had returned or raised already, and its clean-up was ended: {self.stop.evidence}")
        yield ended

    def _ended(self, end: dict[str, Any]) -> Ended:
        entered, left, failure = self.events.entered, self.events.left, self.events.failure
        late = left is not None and self.asked_at is not None and left.clock < self.asked_at
        if end.get("exit_code") == 0 and entered is None and self.stop is None:
            end["exit_code"] = 1  # a module that exits with 0 when it is imported has trained nothing
            text = "the process ended before the trainer was called, while its module was imported"
            failure = Failure("SystemExit", text, "", text)
        if self.stop is not None and self.stop.evidence and not late:
            end["detail"] = self.stop.evidence
            end["stack"], end["place"] = self._stacks()
        return Ended(
            self.clock(),
            failure=failure,
            asked=self.stop.reason if self.stop else None,
            asked_late=late,
            entered=entered.at if entered else None,
            left=left.at if left else None,
            left_code=left.code if left else None,
            unwritten=self.events.unwritten,
            used=self.events.used,
            **end,
        )

    def _stacks(self) -> tuple[str, str]:
        """Where the trial was when it was asked to end: its stacks, and the user's innermost frame."""
        dump = os.pread(self.stack_fd, _MAX_STACKS, 0).decode("ascii", "replace")
        return stack.format_stacks(dump, (*self.order.import_path, self.order.cwd))


def _in_words(exit_code: int | None = None, signal: int | None = None, detail: str = "", oom: bool = False) -> str:
    how = f"exit code {exit_code}" if signal is None else f"signal {signal}"
    return f"{how} ({detail})" if detail else how
