"""From a trial to W&B through everything: the real SDK, online, against a recording server."""

from __future__ import annotations

import os
import signal

import pytest

from tests.ray.support import TRACKED, Project, until
from tests.wandb_server import Server


@pytest.mark.fault(
    "wandb",
    "the server is away while the coordinator is killed",
    "Ray: 503, SIGKILL, the same command again",
    "one run a trial in W&B, each step once",
)
def test_killed_and_resumed_is_one_run(project: Project, server: Server) -> None:
    """The coordinator dies in the middle, the server is away meanwhile: one run a trial, each step once."""
    words = ("do=hold", "x=0,1", "save=true", "+note=a", TRACKED)
    process = project.start_sweep(*words)
    project.until_waiting(2, process)
    until(lambda: len(server.runs) == 2 and all(run.history for run in server.runs.values()), process)
    until(lambda: project.query("SELECT count(*) FROM checkpoint")[0][0] >= 4, process)
    server.outage = "503"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    project.go()
    resumed = project.start_sweep(*words)
    until(lambda: project.query("SELECT count(*) FROM attempt WHERE attempt = 2") == [(2,)], resumed)
    server.outage = None
    out, err = resumed.communicate(timeout=100)
    assert resumed.returncode == 0, out + err
    assert "orchestrate sync" not in out
    assert len(server.runs) == 2
    for run in server.runs.values():
        assert run.steps == [0, 1, 2, 3]
        assert (run.state, run.group) == ("finished", "work")
        assert run.setting("note") == "a"
    assert {run.display_name for run in server.runs.values()} == {"x=0", "x=1"}
    assert "nothing to send" in project.run("sync")
