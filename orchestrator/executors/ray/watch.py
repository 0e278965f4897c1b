"""Looks at the cluster from a thread of its own: which nodes live, which are being drained, whether the head answers.

A call to Ray while the head is gone blocks for up to a minute, and then Ray ends the process.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import ray

INTERVAL = 2.0  # seconds between two looks: nodes may join late
PATIENCE = 30.0  # seconds without an answer after which the head is lost; Ray's own are 60


class ClusterWatch:
    """The latest look. `nodes` are the living ones as Ray lists them; `draining` are ids of nodes."""

    def __init__(self) -> None:
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        self._head = (host.strip("[]"), int(port))
        self._heard = time.monotonic()
        self._closed = threading.Event()
        self._look()
        self._thread = threading.Thread(target=self._run, name="cluster-watch", daemon=True)
        self._thread.start()

    @property
    def head_lost(self) -> bool:
        """Whether the head has not answered for too long."""
        return time.monotonic() - self._heard > PATIENCE + INTERVAL

    def _look(self) -> None:
        self.nodes: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]
        self.draining = set(ray._private.state.state.get_draining_nodes())

    def _run(self) -> None:
        while not self._closed.wait(INTERVAL):
            if self._answers():
                self._look()
                self._heard = time.monotonic()

    def _answers(self) -> bool:
        try:
            socket.create_connection(self._head, timeout=INTERVAL).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._closed.set()
        self._thread.join(INTERVAL)
