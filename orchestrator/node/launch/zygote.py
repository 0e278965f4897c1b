"""The zygote: a warm process, with the trainer's modules imported, that trials are forked from.

    worker ──channel──┐ (started with exec; not a child of the worker)
                      keeper ── zygote ── trial ── whatever the trainer starts
                      (bare)    (torch)

The worker talks to the zygote over a SOCK_SEQPACKET socket: pickled dicts, with file descriptors beside them. When the
worker closes its end, or dies in any way, the keeper kills every process below it and exits. The keeper never runs code
of the user, so an import that hangs or crashes cannot affect it. Keeper and zygote both adopt the orphans of their
descendants, so no process escapes by leaving its session or losing its parent. The exit of a trial is reported when
nothing of its tree is left.

A zygote can be told to import before there is an order (`{"do": "import"}`), and to copy itself (`{"do": "copy"}`), so
that each worker of a machine has a copy, as if it had started it (`zygote_sharing`).

This module imports little, since every process has it loaded before the trainer's own imports.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from orchestrator.interpreter import command
from orchestrator.model.order import Order
from orchestrator.node.launch.keeper import continue_below_keeper
from orchestrator.node.shared import memory_file, messages, process_settings, processes
from orchestrator.node.shared.journal import JournalWriter
from orchestrator.node.shared.trial_paths import TrialPaths
from orchestrator.node.shared.zygote_spec import ZygoteSpec, trial_environment

if TYPE_CHECKING:
    from orchestrator.node.launch.fork_safety import Inspection
    from orchestrator.node.launch.warm import Upkeep

_MOMENT = 1.0  # seconds for what a trial leaves running to end by itself
_ORDER, _JOURNAL, _STACK = 3, 4, 5  # the descriptors of a trial that starts in a fresh interpreter


def main() -> NoReturn:
    """In a fresh interpreter: be a keeper and its zygote."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    processes.leave_parent([channel.fileno()])
    serve(channel, spawn=sys.argv[2] == "spawn")


def serve(channel: socket.socket, spawn: bool = False) -> NoReturn:
    """Become a keeper and its zygote, until the other end of the channel is closed."""
    process_settings.raise_oom_score()
    continue_below_keeper(channel)
    code = 1
    try:
        _Zygote(channel, spawn).serve()
        code = 0
    finally:
        os._exit(code)


class OrderFiles(NamedTuple):
    """The descriptors that come with an order."""

    order: int
    journal: int
    stack: int
    log: int

    def close(self) -> None:
        for fd in self:
            os.close(fd)


class _Zygote:
    """Runs one trial at a time."""

    def __init__(self, channel: socket.socket, spawn: bool) -> None:
        self._channel, self._spawn = channel, spawn
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        # Where a trial writes its stacks: it puts a file of its own there.
        self._stack = memory_file.move_up(os.dup(self._null))
        self._error: BaseException | None = None
        self._inspection: Inspection | None = None
        self._importer = 0  # the process that has imported: this one, or the one that it is a copy of
        self._imported = False
        self._printed: int | None = None  # what an early import has printed, for the log of the first trial
        self._upkeep: Upkeep | None = None
        if spawn:
            processes.shield()
        self._watch()

    def serve(self) -> None:
        """Run trials until the worker closes the channel."""
        while True:
            message, fds = messages.receive(self._channel)
            if message is None or message["do"] == "end":
                break
            if message["do"] == "run":
                files = OrderFiles(*fds)
                self._run(files._replace(journal=memory_file.move_up(files.journal)))
            elif message["do"] == "import":
                self._import_early(*fds)
            elif message["do"] == "copy":
                self._copy(*fds)
            elif message["do"] == "apply_settings":
                self._apply_settings(message["settings"])
            # "signal" is ignored here: it is for a trial that has just ended
        processes.kill_descendants(self._wakeup)
        if message is not None and self._importer == os.getpid():
            from orchestrator.node.launch import warm

            warm.end()  # remove what the imports have made for all trials, such as temporary folders

    def _apply_settings(self, settings: process_settings.ProcessSettings) -> None:
        if self._inspection is not None:
            settings = self._inspection.settings_for(settings)
        process_settings.apply_settings(settings)

    @property
    def _unsafe(self) -> str | None:
        return self._inspection.unsafe if self._inspection else None

    def _run(self, files: OrderFiles) -> None:
        order, gpus, paths = pickle.loads(messages.read_file(files.order))
        unsafe = None if self._spawn else self._prepare(order, gpus, files.log)
        if unsafe:
            messages.send(self._channel, {"unsafe": unsafe})
            files.close()
            return
        pid = self._start_fresh(order, gpus, files) if self._spawn else self._fork(order, gpus, paths, files)
        messages.send(self._channel, {"pid": pid})
        status, peak = self._wait_for(pid)
        files.close()  # not earlier: while the trial lives, each page that we write to is copied
        messages.send(self._channel, {"ended": status, "peak": peak})
        if self._upkeep is not None:
            self._upkeep.trial_ended()

    def _import_early(self, spec_fd: int, log_fd: int) -> None:
        """Import before there is an order, and report what is wrong with the trainer."""
        from orchestrator.node.programs import trainer_problem

        spec = pickle.loads(messages.read_file(spec_fd))
        os.close(spec_fd)
        self._import(spec, log_fd)
        self._printed = log_fd
        problem = trainer_problem.about(spec.trainer, self._error)
        messages.send(self._channel, {"checked": problem, "unsafe": self._unsafe})

    def _copy(self, channel_fd: int) -> None:
        """Fork a copy of this zygote, which has a keeper of its own and serves this channel."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the copy's keeper
        with socket.socket(fileno=channel_fd) as channel:
            if not os.fork():
                self._channel.close()
                self._channel = channel.dup()
                continue_below_keeper(self._channel)
                self._watch()

    def _prepare(self, order: Order, gpus: list[str], log_fd: int) -> str | None:
        """Import what all trials need, once; returns why a fork would be unsafe then, if it would.

        If the import fails, the first trial fails with its error, and the next trial imports again.
        """
        if self._printed is not None:
            with open(log_fd, "wb", closefd=False) as log:
                log.write(messages.read_file(self._printed))
            os.close(self._printed)
            self._printed = None
        elif not self._imported:
            self._import(ZygoteSpec.of(order, gpus), log_fd)
        return self._unsafe

    def _import(self, spec: ZygoteSpec, log_fd: int) -> None:
        from orchestrator.node.inside import ending, trial
        from orchestrator.node.launch import fork_safety, warm

        self._importer = os.getpid()
        inspection = self._inspection
        if inspection is None:
            inspection = self._inspection = fork_safety.Inspection(spec)
        _redirect(self._null, log_fd)  # what modules print when they are imported
        with inspection.watching():
            self._error = warm.preload(spec)
        self._imported = self._error is None
        if spec.start == "fork":
            inspection.judge(self._imported)
        if self._imported and not inspection.unsafe and spec.start == "fork":
            warm.prepare_for_forks()
            inspection.check_again()
        self._upkeep = warm.Upkeep()
        trial.install_signal_handlers(self._stack)
        ending.flush_output()
        _redirect(self._null, self._null)
        processes.shield()
        self._watch()

    def _fork(self, order: Order, gpus: list[str], paths: TrialPaths, files: OrderFiles) -> int:
        from orchestrator.node.inside import stack, trial

        writer = JournalWriter(files.journal, path=f"/proc/{os.getpid()}/fd/{files.journal}")
        prepared = trial.prepare(order, gpus, paths, writer, self._error)
        channel, parent = self._channel.fileno(), os.getpid()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            _redirect(self._null, files.log)
            processes.become_trial(parent)
            if self._inspection is not None:
                self._inspection.enter_trial()
            unused = [channel, files.order, files.log]
            try:
                os.dup2(files.stack, self._stack, False)
                unused.append(files.stack)
            except OSError:  # the module allows fewer open files than this number
                stack.install_handler(files.stack)
            for fd in unused:
                os.close(fd)
            code = trial.main(prepared, forked=True)
        except BaseException:  # an error of this package: `main` handles what the trainer raises
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)

    def _start_fresh(self, order: Order, gpus: list[str], files: OrderFiles) -> int:
        """Start the trial in a fresh interpreter."""
        high = OrderFiles(*map(_high_fd, files))  # so that no dup2 below overwrites one of them
        actions = [
            (os.POSIX_SPAWN_DUP2, fd, number)
            for fd, number in (
                (self._null, 0),
                (high.log, 1),
                (high.log, 2),
                (high.order, _ORDER),
                (high.journal, _JOURNAL),
                (high.stack, _STACK),
            )
        ]
        environment = {**os.environ, **trial_environment(order.threads, gpus)}
        try:
            return os.posix_spawn(
                sys.executable,
                command(__name__, "run_fresh_trial", os.getpid(), files.journal),
                environment,
                file_actions=actions,
                setsigmask=(),
            )
        finally:
            high.close()

    def _wait_for(self, trial: int) -> tuple[int, int]:
        """Forward signals until the trial has ended and its tree is empty; returns its wait status and peak memory."""
        ended, empty = None, False
        while ended is None:
            ready = [fd for fd, _ in self._poll.poll()]
            if self._wakeup in ready:
                processes.drain(self._wakeup)
                found, empty = processes.reap()
                ended = found.get(trial)
            if ended is None and self._channel.fileno() in ready:
                self._forward_signal(trial)
        if not empty:
            killed = (
                os.waitstatus_to_exitcode(ended[0]) == -signal.SIGKILL
            )  # perhaps for the memory that its tree holds
            processes.kill_descendants(self._wakeup, 0.0 if killed else _MOMENT)
        return ended

    def _forward_signal(self, trial: int) -> None:
        message, _ = messages.receive(self._channel)
        if message is None:  # the worker has closed the channel, or died
            processes.kill_descendants(self._wakeup)
            os._exit(0)
        if message["do"] == "signal":
            os.kill(trial, message["number"])  # it has not been reaped, so the pid is still its own

    def _watch(self) -> None:
        """Watch for messages and for the exit of children. An import may have undone an earlier call."""
        self._wakeup = processes.watch_children()
        self._poll = select.poll()
        self._poll.register(self._channel, select.POLLIN)
        self._poll.register(self._wakeup, select.POLLIN)


def run_fresh_trial() -> NoReturn:
    """In a fresh interpreter: run the trial whose files were inherited."""
    zygote, its_journal = map(int, sys.argv[1:])
    processes.become_trial(zygote)
    for fd in (_ORDER, _JOURNAL, _STACK):
        os.set_inheritable(fd, False)
    order, gpus, paths = pickle.loads(messages.read_file(_ORDER))
    os.close(_ORDER)
    from orchestrator.node.inside import trial
    from orchestrator.node.launch import warm
    from orchestrator.node.programs import function

    error = warm.preload(ZygoteSpec.of(order, gpus))
    trial.install_signal_handlers(memory_file.move_up(_STACK))
    writer = JournalWriter(memory_file.move_up(_JOURNAL), path=f"/proc/{zygote}/fd/{its_journal}")
    code = trial.main(trial.prepare(order, gpus, paths, writer, error), forked=False)
    function.look_up.cache_clear()  # else the trainer's module would outlive others, which it needs to close its files
    raise SystemExit(code)  # not `sys.exit`, which libraries replace to learn of an exit


def _redirect(stdin: int, output: int) -> None:
    os.dup2(stdin, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _high_fd(fd: int) -> int:
    """A duplicate with a number from 16 on."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16)
