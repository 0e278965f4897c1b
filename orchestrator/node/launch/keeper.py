"""The keeper: the parent of a zygote, which kills the whole process tree when the zygote or its worker has ended."""

from __future__ import annotations

import os
import select
import socket
from typing import NoReturn

from orchestrator.node.shared import messages, processes


def continue_below_keeper(channel: socket.socket) -> None:
    """Fork: the parent becomes the keeper and never returns, the child returns to be the zygote."""
    os.setsid()
    processes.adopt_orphans()
    wakeup = processes.watch_children()
    child = os.fork()
    if child:
        _keep(channel, wakeup, child)
    processes.die_with(os.getppid())
    processes.adopt_orphans()


def _keep(channel: socket.socket, wakeup: int, zygote: int) -> NoReturn:
    """Wait until the worker or the zygote has ended; kill all descendants; report how the zygote ended, if it did."""
    processes.shield()
    poll = select.poll()
    poll.register(channel, select.POLLRDHUP)
    poll.register(wakeup, select.POLLIN)
    status = None
    while status is None:
        ready = {fd for fd, _ in poll.poll()}
        processes.drain(wakeup)
        status = processes.reap()[0].get(zygote)
        if channel.fileno() in ready:
            break
    processes.kill_descendants(wakeup)
    if status is not None:
        messages.send(channel, {"died": status})
    os._exit(0)
