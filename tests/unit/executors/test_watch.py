"""What the thread that looks at a Ray cluster makes of trouble."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from orchestrator.executors.ray.watch import ClusterWatch, Look

PATIENCE = 30.0  # seconds until a look that does not come is a failure
NODES: list[dict[str, Any]] = [{"NodeID": "a"}]


class Cluster:
    """A head that accepts connections, and looks that do what the test says."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.head = self.listener.getsockname()
        self.error: Exception | None = None
        self.count = 0

    def look(self) -> Look:
        self.count += 1
        if self.error is not None:
            raise self.error
        return Look(NODES, set())

    def looks(self, count: int) -> None:
        """Wait for so many more: all but the last one are over then."""
        wanted = self.count + count
        until(lambda: self.count >= wanted)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    with cluster.listener:
        yield cluster


@pytest.fixture
def watch(cluster: Cluster) -> Iterator[ClusterWatch]:
    with closing(ClusterWatch(cluster.head, cluster.look, interval=0.01)) as watch:
        yield watch


def until(condition: Callable[[], Any]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("it did not come")


def test_an_error_of_a_look_is_told_and_survived(cluster: Cluster, watch: ClusterWatch) -> None:
    """The head answers, so the sweep goes on with what is known of the nodes."""
    cluster.looks(2)
    assert (watch.latest.nodes, watch.problem) == (NODES, "")
    cluster.error = KeyError("Alive")
    until(lambda: watch.problem == "the cluster's nodes cannot be listed: KeyError: 'Alive'")
    heard = watch.heard
    cluster.looks(3)
    assert watch.latest.nodes == NODES
    assert watch.heard > heard
    cluster.error = None
    until(lambda: watch.problem == "")


def test_a_head_that_does_not_answer_is_told_at_once(cluster: Cluster, watch: ClusterWatch) -> None:
    cluster.error = ConnectionError("the GCS is unavailable")
    until(lambda: watch.problem == "the cluster's head does not answer: the GCS is unavailable")
    heard = watch.heard
    cluster.looks(3)
    assert watch.heard == heard, "after a while the head is lost"
    cluster.error = None
    until(lambda: watch.problem == "")
    assert watch.heard > heard
