"""A sweep that version 0.1 left behind, cut off in its middle, goes on with this version: the same command."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.ray.support import Project
from tests.wandb_server import Server

OLD = Path(__file__).parents[1] / "fixtures" / "version-0.1"
WORDS = ("do=hold", "x=0,1,2,3,4,5,6")


def test_it_goes_on(project: Project, server: Server) -> None:
    """The server is new: whatever version 0.1 had delivered must not come again."""
    shutil.copytree(OLD / "project", project.root, dirs_exist_ok=True)
    shutil.copytree(OLD / "sweep", project.runs / "work")
    before = project.query("SELECT trial_id, objective, metrics FROM trials WHERE state = 'SUCCEEDED'")
    assert len(before) == 3
    project.go()
    out = project.sweep(*WORDS, code=1)  # one trial had failed for good
    assert "7 trials: 3 succeeded" in out
    assert "W&B has not received everything" not in out
    assert project.counts() == {"SUCCEEDED": 6, "FAILED": 1}
    after = project.query("SELECT trial_id, objective, metrics FROM trials WHERE state = 'SUCCEEDED'")
    assert set(before) < set(after)
    # What ended did not run again; what was cut off went on from its checkpoint, what was queued ran.
    query = """SELECT t.overrides, a.attempt, a.restored, a.parent_attempt
               FROM attempt a JOIN trial t ON t.id = a.trial WHERE a.plan = 3 ORDER BY t.position"""
    assert project.query(query) == [('{"x":4}', 2, 1, 1), ('{"x":5}', 2, 1, 1), ('{"x":6}', 2, None, None)]
    assert project.query("SELECT DISTINCT step FROM reports WHERE trial_id = '064b5a282738'") == [
        (n,) for n in range(4)
    ]
    # W&B has the runs of these three, each step once, and no other: the ledger of version 0.1 was taken over.
    assert sorted(run.display_name for run in server.runs.values()) == ["x=4", "x=5", "x=6"]
    assert [run.steps for run in server.runs.values()] == [[0, 1, 2, 3]] * 3
    assert {run.state for run in server.runs.values()} == {"finished"}
    assert "nothing to send" in project.run("sync")
    assert (project.runs / "work" / "manifest.db.schema-1").is_file()
