"""The warm process that trials are forked from, and the keeper that outlives its worker.

    worker ──socket──┐ (exec, then forked away: no child of the worker)
                     keeper ── zygote ── trial ── whatever the trainer starts
                     (bare)    (torch)

The worker talks to the zygote over a socket: datagrams of JSON, file descriptors beside them. When the worker
closes its end, or dies in any way, the keeper kills every process below it and leaves. The keeper never runs
code of the user, so an import that hangs or crashes cannot take it along. Both adopt the orphans of their
descendants, so no process gets away by leaving its session or losing its parent; a trial's exit is reported
when nothing of its tree is left.

A zygote may be told to import before there is an order (`{"do": "import"}`), and to give copies of itself
(`{"do": "copy"}`): each worker of a machine has one, as if it had started it (`zygote_sharing`).

This module imports little: it is in every process before the trainer's own imports.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import select
import signal
import socket
import sys
from typing import Any, NamedTuple, NoReturn

from orchestrator.files import PACKAGE
from orchestrator.model.order import Order
from orchestrator.node.inside.journal import JournalWriter
from orchestrator.node.shared import messages, processes
from orchestrator.node.shared.trial_paths import TrialPaths
from orchestrator.node.shared.zygote_spec import ZygoteSpec, trial_environment

BOOT = """import sys
sys.path[:] = filter(None, sys.path)
sys.path.append(sys.argv[1])
from orchestrator.node.launch import {0}
{0}.{1}()
"""
_ROOM = 2**16  # bytes in a pipe
_ORDER, _JOURNAL, _STACK = 3, 4, 5  # where a fresh interpreter finds its files

# Threads that may live in a process that is forked. An unknown one costs a slower start; a wrong one, a trial that
# hangs for ever. jemalloc's (pyarrow, so pandas) restarts in the child: 150 of 150 forks computed with pandas and it.
HARMLESS_THREADS = frozenset({"jemalloc_bg_thd"})


def command(module: str, entry: str, *arguments: object) -> list[str]:
    """The command line of an interpreter that runs `entry` of a module beside this one, not importing from its cwd."""
    root = os.path.dirname(PACKAGE)
    return [sys.executable, "-c", BOOT.format(module, entry), root, *map(str, arguments)]


def main() -> NoReturn:
    """In a fresh interpreter: leave the worker's children, then split into keeper and zygote."""
    channel = socket.socket(fileno=int(sys.argv[2]))
    channel.set_inheritable(False)
    if os.fork():
        os._exit(0)
    processes.fresh_signals()
    live(channel, spawn=sys.argv[3] == "spawn")


def live(channel: socket.socket, spawn: bool = False) -> NoReturn:
    """Be a keeper and its zygote, until the other end of the channel is closed."""
    processes.go_first()
    _leave_keeper(channel)
    code = 1
    try:
        _Zygote(channel, spawn).serve()
        code = 0
    finally:
        os._exit(code)


def _leave_keeper(channel: socket.socket) -> None:
    """Go on in a child, below a keeper."""
    os.setsid()
    processes.adopt_orphans()
    wake = processes.watch_children()
    child = os.fork()
    if child:
        _keep(channel, wake, child)
    processes.die_with(os.getppid())
    processes.adopt_orphans()


def _keep(channel: socket.socket, wake: int, zygote: int) -> NoReturn:
    """Wait for the worker or the zygote to go; end everything below; say what became of the zygote."""
    poll = select.poll()
    poll.register(channel, select.POLLRDHUP)
    poll.register(wake, select.POLLIN)
    status = None
    while status is None:
        ready = {fd for fd, _ in poll.poll()}
        processes.drain(wake)
        status = processes.reap()[0].get(zygote)
        if channel.fileno() in ready:
            break
    processes.clear(wake)
    if status is not None:
        messages.send(channel, {"died": status})
    os._exit(0)


class _Files(NamedTuple):
    """Descriptors that come with an order."""

    order: int
    journal: int
    stack: int
    log: int


class _Zygote:
    """Runs one trial at a time."""

    def __init__(self, channel: socket.socket, spawn: bool) -> None:
        self._channel, self._spawn = channel, spawn
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._stack = _raise(self._null)  # of each trial in turn: where it is to write its stacks
        self._error: BaseException | None = None
        self._unsafe: str | None = None
        self._warm = False
        self._printed: int | None = None  # what an early import has printed, for the first trial's log
        self._trials = 0
        self._listen()

    def serve(self) -> None:
        """Trials, until the worker closes the socket."""
        while True:
            message, fds = messages.receive(self._channel)
            if message is None:
                break
            if message["do"] == "run":  # a signal here is for a trial that has just ended
                self._run(_Files(*fds))
            elif message["do"] == "import":
                self._import_early(*fds)
            elif message["do"] == "copy":
                self._copy(*fds)
            elif message["do"] == "stand":
                processes.apply_settings(message["as"])
        processes.clear(self._wake)

    def _run(self, files: _Files) -> None:
        order, gpus, paths = pickle.loads(messages.content(files.order))
        why = None if self._spawn else self._prepare(order, gpus, files.log)
        if why:
            messages.send(self._channel, {"unsafe": why})
        else:
            pid = self._start_fresh(order, gpus, files) if self._spawn else self._fork(order, gpus, paths, files)
            messages.send(self._channel, {"pid": pid})
            status, peak = self._follow(pid)
        for fd in files:  # not before: what we write to while it lives is copied
            os.close(fd)
        if not why:
            messages.send(self._channel, {"ended": status, "peak": peak})
            self._tidy()

    def _import_early(self, spec_fd: int, log_fd: int) -> None:
        """Import before there is an order, and tell what is wrong with the trainer."""
        from orchestrator.node.programs import trainer_problem

        spec = pickle.loads(messages.content(spec_fd))
        os.close(spec_fd)
        self._import(spec, log_fd)
        self._printed = log_fd
        wrong = trainer_problem.about(spec.trainer, self._error)
        messages.send(self._channel, {"checked": wrong, "unsafe": self._unsafe})

    def _copy(self, channel_fd: int) -> None:
        """Become two, where a fork is safe: the other has a keeper of its own, and is talked to over this channel."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the copy's keeper
        with socket.socket(fileno=channel_fd) as channel:
            if not os.fork():
                self._channel.close()
                self._channel = channel.dup()
                _leave_keeper(self._channel)
                self._listen()

    def _prepare(self, order: Order, gpus: list[str], log_fd: int) -> str | None:
        """Import what all trials need, once; the reason if a fork would not be safe after that.

        An import that fails is the first trial's failure, and tried again for the next one.
        """
        if self._printed is not None:
            with open(log_fd, "wb", closefd=False) as log:
                log.write(messages.content(self._printed))
            os.close(self._printed)
            self._printed = None
        elif not self._warm:
            self._import(ZygoteSpec.of(order, gpus), log_fd)
        return self._unsafe

    def _import(self, spec: ZygoteSpec, log_fd: int) -> None:
        from orchestrator.node.inside import trial
        from orchestrator.node.launch import warm

        _redirect(self._null, log_fd)  # what a module prints while it is imported
        self._error = warm.preload(spec)
        self._unsafe = unsafe_to_fork()
        self._warm = self._error is None
        if self._warm and not self._unsafe and spec.start == "fork":
            warm.expect_forks()
            self._unsafe = unsafe_to_fork()
        trial.listen(self._stack)
        trial.flush()
        _redirect(self._null, self._null)
        self._listen()

    def _fork(self, order: Order, gpus: list[str], paths: TrialPaths, files: _Files) -> int:
        from orchestrator.node.inside import trial

        ready = trial.prepare(order, gpus, paths, JournalWriter(files.journal), self._error)
        channel, parent = self._channel.fileno(), os.getpid()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            _redirect(self._null, files.log)
            processes.become_trial(parent)
            os.dup2(files.stack, self._stack, False)
            for fd in (channel, files.order, files.stack, files.log):
                os.close(fd)
            code = trial.main(ready)
        except BaseException:  # of ours: `main` tells the trainer's own
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)

    def _start_fresh(self, order: Order, gpus: list[str], files: _Files) -> int:
        high = _Files(*map(_raise, files))  # clear of where they are wanted
        wanted = {
            0: self._null,
            1: high.log,
            2: high.log,
            _ORDER: high.order,
            _JOURNAL: high.journal,
            _STACK: high.stack,
        }
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in wanted.items()]
        environment = {**os.environ, **trial_environment(order.threads, gpus)}
        try:
            return os.posix_spawn(
                sys.executable,
                command("zygote", "fresh", os.getpid()),
                environment,
                file_actions=actions,
                setsigmask=(),
            )
        finally:
            for fd in high:
                os.close(fd)

    def _follow(self, trial: int) -> tuple[int, int]:
        """Pass signals on until the trial is over and its tree empty; its wait status and peak memory."""
        ended, empty = None, False
        while ended is None:
            ready = [fd for fd, _ in self._poll.poll()]
            if self._wake in ready:
                processes.drain(self._wake)
                found, empty = processes.reap()
                ended = found.get(trial)
            if ended is None and self._channel.fileno() in ready:
                self._pass_on(trial)
        if not empty:
            processes.clear(self._wake)
        return ended

    def _pass_on(self, trial: int) -> None:
        message, _ = messages.receive(self._channel)
        if message is None:  # the worker is gone
            processes.clear(self._wake)
            os._exit(0)
        if message["do"] == "signal":
            os.kill(trial, message["number"])  # not reaped yet, so the number is still its own

    def _listen(self) -> None:
        """Wake up for messages and for children that end; an import may have undone an earlier call."""
        self._wake = processes.watch_children()
        self._poll = select.poll()
        self._poll.register(self._channel, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def _tidy(self) -> None:
        """Between two trials, while nobody waits for us."""
        if not self._spawn:
            from orchestrator.node.launch import warm

            self._trials += 1
            warm.tidy(self._trials)


def fresh() -> NoReturn:
    """In a fresh interpreter: be the trial whose files were inherited."""
    processes.become_trial(int(sys.argv[2]))
    for fd in (_ORDER, _JOURNAL, _STACK):
        os.set_inheritable(fd, False)
    order, gpus, paths = pickle.loads(messages.content(_ORDER))
    os.close(_ORDER)
    from orchestrator.node.inside import trial
    from orchestrator.node.launch import warm

    error = warm.preload(ZygoteSpec.of(order, gpus))
    trial.listen(_STACK)
    os._exit(trial.main(trial.prepare(order, gpus, paths, JournalWriter(_JOURNAL), error)))


def refuse(channel: socket.socket, printed: int, why: dict[str, Any]) -> None:
    """Answer an order, if it has come, that no zygote is there for: an import's output is left in its log."""
    channel.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        message, fds = messages.receive(channel)
        while message is not None:
            if message["do"] == "run":
                files = _Files(*fds)
                _leave(files.log, messages.content(printed))
                for fd in files:
                    os.close(fd)
            message, fds = messages.receive(channel)
    if why:
        messages.send(channel, why)


def _leave(pipe: int, text: bytes) -> None:
    """Write its end into a pipe, as far as there is room: whoever reads it may be waiting for us, or gone."""
    text = text[-_ROOM:]
    with contextlib.suppress(OSError):
        while text and select.select([], [pipe], [], 0)[1]:
            text = text[os.write(pipe, text[: select.PIPE_BUF]) :]


def unsafe_to_fork() -> str | None:
    """Why a fork of this process might hang or fail, in words; None if nothing speaks against it."""
    main = os.getpid()
    names = [_thread_name(int(tid)) for tid in os.listdir("/proc/self/task") if int(tid) != main]
    alarming = sorted({name for name in names if name not in HARMLESS_THREADS})
    if alarming:
        return f"it starts threads when it is imported ({', '.join(alarming)})"
    torch = sys.modules.get("torch")
    if (torch is not None and torch.cuda.is_initialized()) or _has_cuda_files():
        return "it initialises CUDA when it is imported"
    return None


def _thread_name(tid: int) -> str:
    try:
        with open(f"/proc/self/task/{tid}/comm") as file:
            return file.read().strip()
    except OSError:  # it ended while we looked
        return "short-lived"


def _has_cuda_files() -> bool:
    """CUDA holds nvidia-uvm open; NVML, which is safe to fork, opens the other devices only."""
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("/dev/nvidia-uvm"):
                return True
        except OSError:
            continue
    return False


def _redirect(stdin: int, output: int) -> None:
    os.dup2(stdin, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _raise(fd: int) -> int:
    """A copy that stands clear of the low numbers."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16)
