"""From a trial to W&B through everything: the real SDK, online, against a recording server."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.ray.support import Project, until
from tests.wandb_server import Server

TRACKED = "sweep.tracking.wandb={project: shop}"


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


def test_a_failed_trial_is_a_failed_run(project: Project, server: Server) -> None:
    """In W&B, and in a file beside it."""
    project.sweep("do=odd", "x=0,1", TRACKED, "sweep.tracking.jsonl=all.jsonl", code=1)
    assert sorted(run.state for run in server.runs.values()) == ["failed", "finished"]
    lines = [json.loads(line) for line in (project.root / "all.jsonl").read_text().splitlines()]
    assert sorted(line["exit_code"] for line in lines if "exit_code" in line) == [0, 1]
    steps = {run.name: run.steps for run in server.runs.values()}
    assert {name: [line["step"] for line in lines if line["run"] == name and "step" in line] for name in steps} == steps
    assert project.run("sync").splitlines() == ["work: W&B: nothing to send", "work: JSON Lines: nothing to send"]


def test_offline_then_synced(project: Project, server: Server) -> None:
    """Recorded without a network, sent later: whole files first, then the same runs from the manifest."""
    project.env["WANDB_MODE"] = "offline"
    project.sweep("x=0,1", TRACKED)
    assert not server.runs
    assert len(list((project.runs / "work" / "wandb").glob("**/*.wandb"))) == 2
    project.env["WANDB_MODE"] = "online"
    assert "2 runs sent" in project.run("sync")
    assert [run.steps for run in server.runs.values()] == [[0, 1, 2, 3]] * 2
    assert "nothing to send" in project.run("sync")


def test_off(project: Project, server: Server) -> None:
    project.sweep("x=0")
    assert not server.runs
    assert not (project.runs / "work" / "wandb").exists()
    assert not (project.runs / "work" / "tracking").exists()
