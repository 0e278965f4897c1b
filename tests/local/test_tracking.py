"""From a trial to trackers, as a user runs it: the real W&B SDK, online, against a recording server."""

from __future__ import annotations

import json

from tests.ray.support import TRACKED, Project
from tests.wandb_server import Server


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
