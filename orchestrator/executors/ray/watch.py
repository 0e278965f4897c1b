"""Looks at the cluster from a thread of its own: which nodes live, which are being drained, whether the head answers.

A call to Ray while the head is gone blocks for up to a minute, and then Ray ends the process.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

INTERVAL = 2.0  # seconds between two looks: nodes may join late
PATIENCE = 30.0  # seconds without an answer after which the head is lost; Ray's own are 60


class Look(NamedTuple):
    """What there is. `nodes` are those that take trials, as Ray lists them; `draining` are ids of others."""

    nodes: list[dict[str, Any]]
    draining: set[str]


class ClusterWatch:
    """The latest look."""

    def __init__(self, head: tuple[str, int], look: Callable[[], Look], interval: float = INTERVAL) -> None:
        """`head`: where it listens. `look` raises ConnectionError if the head does not answer it."""
        self._head, self._look, self._interval = head, look, interval
        self.heard = time.monotonic()  # the head
        self._closed = threading.Event()
        self.latest = look()
        self.problem = ""  # what was wrong with the last look
        self._thread = threading.Thread(target=self._run, name="cluster-watch", daemon=True)
        self._thread.start()

    @property
    def head_lost(self) -> bool:
        """Whether the head has not answered for too long."""
        return time.monotonic() - self.heard > PATIENCE + INTERVAL

    def _run(self) -> None:
        while not self._closed.wait(self._interval):
            if not self._connects():
                continue
            try:
                self.latest, self.problem = self._look(), ""
            except ConnectionError as error:
                self.problem = f"the cluster's head does not answer: {error}"
                continue
            except Exception as error:  # the head answers, and trials go on: what we know of the nodes is only older
                self.problem = f"the cluster's nodes cannot be listed: {type(error).__name__}: {error}"
            self.heard = time.monotonic()

    def _connects(self) -> bool:
        try:
            socket.create_connection(self._head, timeout=INTERVAL).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._closed.set()
        self._thread.join(INTERVAL)
