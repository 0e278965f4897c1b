"""The head of the cluster is lost: the sweep says so and ends; once a head is there again, the same command goes on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.ray.support import PATIENCE, Project, alive, until


@pytest.fixture
def start_head(tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """Starts a cluster of one node on a port of its own."""
    started = []

    def start(port: int) -> subprocess.Popen[bytes]:
        size = ["--num-cpus=2", "--num-gpus=2", "--object-store-memory=100000000", "--include-dashboard=false"]
        where = ["--head", f"--port={port}", "--node-ip-address=127.0.0.1", f"--temp-dir=/tmp/ray-{os.getpid()}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        with open(tmp_path / "head.log", "ab") as log:
            head = subprocess.Popen([*command, *where, *size], stdout=log, stderr=log, start_new_session=True)
        started.append(head)
        until(lambda: _listens(port) and "raylet" in _names(head))
        return head

    yield start
    for head in started:
        lose(head)


def _names(head: subprocess.Popen[bytes]) -> set[str]:
    return {child.name() for child in psutil.Process(head.pid).children(recursive=True)}


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def lose(head: subprocess.Popen[bytes]) -> None:
    """All of Ray on that node is gone at once."""
    if head.poll() is None:
        for process in [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]:
            process.kill()
    head.communicate()


@pytest.mark.fault(
    "ray",
    "the head is lost",
    "Ray: all processes of a cluster of one node, SIGKILL; started again",
    "a message, and no process is left; the same command goes on from the checkpoints",
)
@pytest.mark.campaign  # half a minute of patience
def test_the_head_is_lost(project: Project, start_head: Callable[[int], subprocess.Popen[bytes]]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    head = start_head(port)
    project.address = f"127.0.0.1:{port}"
    process = project.start_sweep("do=hold", "x=0,1", "save=true")
    pids = project.until_waiting(2, process)
    until(lambda: project.query("SELECT count(*) FROM checkpoint") == [(4,)], process)
    lose(head)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, out + err
    assert "the Ray cluster went away" in err
    assert "Traceback" not in out + err
    until(lambda: not any(map(alive, pids)))
    project.go()
    start_head(port)
    project.sweep("do=hold", "x=0,1", "save=true")
    rows = project.query("SELECT attempt, state, restored FROM attempt ORDER BY attempt, trial")
    assert rows == [(1, "LOST", None)] * 2 + [(2, "SUCCEEDED", 1)] * 2
