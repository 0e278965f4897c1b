"""Ctrl-C, `stop` and a second coordinator, as a user meets them."""

from __future__ import annotations

import signal

from tests.ray.support import PATIENCE, Project, alive


def test_interrupted_once(project: Project) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process = project.start_sweep("do=hold", "-j", "2")
        pids = project.until_waiting(2, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130, out + err
        assert "the same command goes on from here" in out
        assert "Traceback" not in out + err
        assert project.counts() == {"CANCELLED": 2, "PENDING": 2}
        assert not any(map(alive, pids))
        for file in project.meet.iterdir():
            file.unlink()
    project.go()
    assert "4 trials: 4 to run" in project.sweep("do=hold")
    assert project.counts() == {"SUCCEEDED": 4}
    assert project.query("SELECT count(*) FROM attempt WHERE state = 'SUCCEEDED'") == [(4,)]


def test_stop_from_another_shell(project: Project) -> None:
    process = project.start_sweep("do=hold", "-j", "2")
    project.until_waiting(2, process)
    assert "stopped; the same sweep command continues it" in project.run("stop", "work")
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "is not running" in project.run("stop", "work")


def test_a_second_coordinator_is_refused(project: Project) -> None:
    process = project.start_sweep("do=hold", "x=0,1")
    project.until_waiting(2, process)
    out = project.sweep("do=hold", "x=0,1", code=2)
    assert f"another coordinator runs this sweep (pid {process.pid} on" in out
    project.go()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
