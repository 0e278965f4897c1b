"""A sweep from its file to its results, as a user runs it: what does not depend on where its trials run."""

from __future__ import annotations

import pytest

from tests.ray.support import TRAINER, Project


def test_only_the_difference_runs(project: Project) -> None:
    first = project.sweep()
    assert "work: 4 trials: 4 to run" in first
    assert "4 trials: 4 succeeded" in first
    assert first.splitlines()[-1].startswith("orchestrate trials work")  # nothing on stderr, of Ray neither
    again = project.sweep()
    assert "work: 4 trials: 4 succeeded, 0 to run" in again
    assert "→" not in again
    edited = project.sweep("x=1,2,9")
    assert "work: 3 trials: 2 succeeded, 1 to run" in edited
    assert edited.count("→") == 1
    assert len(project.trials()) == 3
    assert len(project.trials("--all")) == 5
    assert project.query("SELECT count(*) FROM attempt") == [(5,)]


def test_a_failing_trial_ends_no_sweep(project: Project) -> None:
    out = project.sweep("do=odd", code=1)
    line = 1 + TRAINER.splitlines().index('            raise ValueError("x is odd")')
    assert f"work.py:{line}: ValueError: x is odd" in out
    assert "Traceback" not in out
    assert project.counts() == {"SUCCEEDED": 2, "FAILED": 2}
    again = project.sweep("do=odd", code=1)
    assert "4 trials: 2 succeeded, 2 failed (orchestrate resubmit work), 0 to run" in again
    failed = project.trials("--state", "failed")
    assert {trial["overrides"]["x"] for trial in failed} == {1, 3}
    shown = project.run("show", failed[0]["trial_id"])
    assert 'raise ValueError("x is odd")' in shown
    assert "orchestrator/" not in shown.partition("Traceback")[2]


def test_a_sweep_that_is_no_use_ends_early(project: Project) -> None:
    out = project.sweep("do=fail", "-j", "1", code=1)
    line = 1 + TRAINER.splitlines().index('            raise ValueError(f"bad value {cfg.x}")')
    assert f"ended early: 3 of 3 trials failed at work.py:{line}: ValueError: bad value 0; 1 not run" in out
    assert "--rerun failed" in out
    assert project.counts() == {"FAILED": 3, "PENDING": 1}
    (group,) = project.json("failures", "--json")
    assert (group["count"], group["kind"], group["place"]) == (3, "ValueError", f"work.py:{line}")
    assert "ended early" not in project.sweep("do=fail", "sweep.stop_after_failures=0", code=1)
    assert project.counts() == {"FAILED": 4}


def test_a_trial_that_hangs_is_ended(project: Project) -> None:
    out = project.sweep("do=hold", "x=0", "sweep.heartbeat=500ms", code=1)
    assert "no report for 0.5s, which is sweep.heartbeat" in out
    assert project.query("SELECT state, cause FROM attempt") == [("FAILED", "hang")]


def test_resubmit_runs_failed_trials_again(project: Project) -> None:
    project.sweep("do=fail", "x=0,1", code=1)
    one = project.trials()[0]["trial_id"]
    project.run("resubmit", "--trial", one, code=1)
    assert {trial["trial_id"]: trial["attempts"] for trial in project.trials()}[one] == 2
    project.run("resubmit", "work", "--failed", code=1)
    assert sorted(trial["attempts"] for trial in project.trials()) == [2, 3]
    (project.root / "work.py").write_text((project.root / "work.py").read_text().replace('cfg.do == "fail"', "False"))
    project.run("resubmit", code=1)  # the sweep's own copy of the code: the edit does not reach it
    out = project.sweep("do=fail", "x=0,1", "--rerun", "failed")
    assert "2 trials: 2 succeeded" in out


def test_stale_trials_are_told_and_rerun_on_request(project: Project) -> None:
    project.sweep("x=0,1")
    source = project.root / "work.py"
    source.write_text(source.read_text() + "\nNEW = 1\n")
    assert "2 of them stale" in project.sweep("x=0,1")
    plan = project.run("plan", "conf/sweep.yaml", "x=0,1", f"meet={project.meet}")
    assert "work.py +2 −0" in plan
    project.sweep("x=0,1", "--rerun", "stale")
    assert project.query("SELECT max(attempt) FROM attempt GROUP BY trial") == [(2,), (2,)]
    assert "stale" not in project.run("status")


def test_retries_have_a_budget(project: Project) -> None:
    project.sweep("do=once", "x=0", "sweep.retries=1")
    assert project.query("SELECT attempt, state, cause FROM attempt") == [(1, "FAILED", "signal"), (2, "SUCCEEDED", "")]
    project.sweep("do=fail", "x=0", "sweep.retries=1", code=1)
    assert project.query("SELECT count(*) FROM attempt a JOIN trials t ON t.current WHERE a.cause = 'exception'") == [
        (2,)
    ]


@pytest.mark.parametrize(("do", "message"), [("exit", "exit code 3"), ("segv", "SIGSEGV")])
def test_a_process_that_dies_says_how(project: Project, do: str, message: str) -> None:
    assert message in project.sweep(f"do={do}", "x=0", code=1)


def test_limits(project: Project) -> None:
    project.sweep("--limit", "2")
    assert project.counts() == {"SUCCEEDED": 2, "PENDING": 2}
    project.sweep("-j", "1")
    times = project.query("SELECT started, ended FROM attempt ORDER BY started")[2:]
    assert times[0][1] <= times[1][0]


def test_the_end_says_how_long_it_took_where_everything_is_and_what_is_next(project: Project) -> None:
    out = project.sweep("x=1", "--rerun", "stale")
    assert "work: 1 trial: 1 to run" in out
    assert "1 trial: 1 succeeded" in out
    out = project.sweep("--limit", "1")
    took, *_ = (line for line in out.splitlines() if "results and logs are in" in line)
    assert took.endswith("s in all; results and logs are in runs/work")
    following = out.partition("2 still waiting; to run them:\n  ")[2].splitlines()[0]
    assert following.startswith("orchestrate sweep ")
    assert "--limit" not in following
    assert f"not running; the same sweep command continues it: {following}" in project.run("status")


def test_what_still_waits_is_told_beside_what_has_failed(project: Project) -> None:
    out = project.sweep("do=fail", "--limit", "2", code=1)
    assert "orchestrate resubmit work   runs the failed ones again" in out
    assert "2 still waiting; to run them:\n  orchestrate sweep " in out
