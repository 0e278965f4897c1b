"""Ctrl-C, `stop`, `kill -9` and a second coordinator: nothing lost, nothing twice, no process left."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest

from tests.ray.support import PATIENCE, Project, alive, until


@pytest.mark.fault(
    "coordinator",
    "SIGINT twice",
    "Ray: while two trials run whose children ignore SIGTERM",
    "exit code 130 without waiting for the grace; no process is left",
)
def test_interrupted_twice(project: Project) -> None:
    """The second time nobody's grace is waited for."""
    process = project.start_sweep("do=orphan", "-j", "2", "sweep.grace=10m")
    pids = project.until_waiting(2, process)
    orphans = project.until_orphans(2, process)
    process.send_signal(signal.SIGINT)
    until(lambda: project.query("SELECT 1 FROM attempt WHERE state = 'RUNNING'"))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    until(lambda: not any(map(alive, pids + orphans)))
    project.go()
    project.sweep("do=nothing")


@pytest.mark.fault(
    "coordinator",
    "`kill -9`",
    "Ray, a joined cluster: while two trials run whose children hide",
    "no process is left; finished trials are kept, the others go on from their checkpoints",
)
def test_the_coordinator_is_killed(project: Project) -> None:
    """Finished trials are kept, interrupted ones run again, and no process stays: not even one that hides."""
    process = project.start_sweep("do=orphan", "x=0,1,2", "-j", "2", "save=true")
    pids = project.until_waiting(2, process)
    orphans = project.until_orphans(2, process)
    until(lambda: project.query("SELECT count(*) FROM checkpoint")[0][0] >= 4, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    until(lambda: not any(map(alive, pids + orphans)))
    assert "its coordinator died" in project.run("status")
    project.go()
    assert "3 trials: 3 to run" in project.sweep("do=orphan", "x=0,1,2", "save=true")
    rows = project.query("SELECT attempt, state, cause, lineage, restored FROM attempt ORDER BY attempt, trial")
    assert rows[:2] == [(1, "LOST", "lost_coordinator", 1, None)] * 2
    assert (2, "SUCCEEDED", "", 1, 1) in rows
    for trial in project.trials():
        (shown,) = project.json("show", trial["trial_id"], "--json")
        assert [row["step"] for row in shown["series"]] == [0, 1, 2, 3]
    until(lambda: not project.processes())


@pytest.mark.fault(
    "ray",
    "a worker is killed",
    "Ray: SIGKILL",
    "cause lost_worker; its processes go with it; the trial runs again free of charge",
)
def test_a_worker_is_killed(project: Project, cluster: Any) -> None:
    """The trial is lost, its processes go with the worker, and it runs again free of charge."""
    process = project.start_sweep("do=orphan", "x=0,1", "-j", "1")
    (pid,) = project.until_waiting(1, process)
    (orphan,) = project.until_orphans(1, process)
    (worker,) = _workers(cluster)
    os.kill(worker, signal.SIGKILL)
    until(lambda: not alive(pid) and not alive(orphan))
    project.go()
    process.communicate(timeout=100)
    assert process.returncode == 0
    rows = project.query("SELECT attempt, state, cause FROM attempt ORDER BY trial, attempt")
    assert rows[:2] == [(1, "LOST", "lost_worker"), (2, "SUCCEEDED", "")]


@pytest.mark.fault(
    "ray",
    "a worker is told to end",
    "Ray: SIGTERM, as before a preemption",
    "the trial has `sweep.grace` to save, is LOST, and goes on from what it saved",
)
def test_a_worker_is_told_to_end(project: Project, cluster: Any) -> None:
    process = project.start_sweep("do=grace", "x=0", "sweep.grace=60")
    (pid,) = project.until_waiting(1, process)
    (worker,) = _workers(cluster)
    os.kill(worker, signal.SIGTERM)
    until(lambda: not alive(pid))
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
    rows = project.query("SELECT attempt, state, cause, restored FROM attempt ORDER BY attempt")
    assert rows == [(1, "LOST", "lost_worker", None), (2, "SUCCEEDED", "", 2)]


def test_a_worker_is_killed_while_others_wait(project: Project, cluster: Any) -> None:
    """Of the trials that wait behind those that run none is lost with the worker."""
    process = project.start_sweep("do=hold", "x=range(0,12)")
    project.until_waiting(6, process)
    until(lambda: _waiting_behind(project), process)
    os.kill(_workers(cluster)[0], signal.SIGKILL)
    until(lambda: project.query("SELECT count(*) FROM attempt WHERE state = 'LOST'") == [(1,)], process)
    project.go()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert project.query("SELECT count(*), count(DISTINCT trial) FROM attempt WHERE state = 'SUCCEEDED'") == [(12, 12)]
    assert project.query("SELECT count(*) FROM attempt") == [(13,)]


def test_interrupted_while_others_wait(project: Project) -> None:
    """What waits behind trials that run is not started any more, and runs the next time."""
    process = project.start_sweep("do=hold", "x=range(0,12)")
    project.until_waiting(6, process)
    until(lambda: _waiting_behind(project), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, out + err
    assert project.query("SELECT count(*) FROM attempt WHERE started IS NOT NULL") == [(6,)]
    assert set(project.counts()) == {"CANCELLED", "PENDING"}
    project.go()
    project.sweep("do=hold", "x=range(0,12)")
    assert project.counts() == {"SUCCEEDED": 12}


def _waiting_behind(project: Project) -> bool:
    return project.query("SELECT count(*) > 0 FROM attempt WHERE state = 'LAUNCHING'") == [(1,)]


def _workers(cluster: Any) -> list[int]:
    """The workers of this cluster that hold a slot: their task, and so their title, is named so."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    running = psutil.process_iter(["ppid", "cmdline"])
    return [row.pid for row in running if row.info["ppid"] in raylets and "ray::slot" in (row.info["cmdline"] or [])]


def test_resubmit_joins_a_live_sweep(project: Project) -> None:
    project.sweep("do=fail", "x=7", code=1)
    failed = project.trials()[0]["trial_id"]
    process = project.start_sweep("do=hold", "x=0,1")
    project.until_waiting(2, process)
    assert "1 trial queued" in project.run("resubmit", "work", "--trial", failed)
    until(lambda: project.query("SELECT max(attempt) FROM attempt") == [(2,)], process)
    project.go()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
