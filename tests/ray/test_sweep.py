"""A sweep from its file to its results, as a user runs it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys

import pytest

from tests.ray.support import TRAINER, Project, until


def test_only_the_difference_runs(project: Project) -> None:
    first = project.sweep()
    assert "work: 4 trials: 4 to run" in first
    assert "4 trials: 4 succeeded" in first
    assert first.splitlines()[-1].startswith("orchestrate trials work")  # nothing on stderr, of Ray neither
    again = project.sweep()
    assert "work: 4 trials: 4 done, 0 to run" in again
    assert "→" not in again
    edited = project.sweep("x=1,2,9")
    assert "work: 3 trials: 2 done, 1 to run" in edited
    assert edited.count("→") == 1
    assert len(project.trials()) == 3
    assert len(project.trials("--all")) == 5
    assert project.query("SELECT count(*) FROM attempt") == [(5,)]


@pytest.mark.fault(
    "coordinator",
    "stdin, stdout and stderr are closed",
    "local: as a service manager may start it; a file of the project has a name that is no valid Unicode",
    "every trial has succeeded; the file is in the copy of the code",
)
def test_a_sweep_without_standard_streams_and_with_an_odd_name(project: Project) -> None:
    """As a service manager may start it; one of the project's files has a name that is no valid Unicode."""
    (project.root / os.fsdecode(b"caf\xe9.py")).write_text("x = 1\n")
    project.command = ("sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *project.command)
    assert project.sweep("x=1,2") == ""
    project.command = project.command[3:]
    assert project.counts() == {"SUCCEEDED": 2}
    ((tree,),) = project.query("SELECT json_extract(provenance, '$.tree') FROM plan")
    assert b"caf\xe9.py" in os.listdir(os.fsencode(project.runs / "work" / "code" / tree))


@pytest.mark.fault("coordinator", "the output's reader goes away", "sweep … | head -1", "every trial has succeeded")
def test_a_sweep_whose_reader_goes_away(project: Project) -> None:
    process = project.start_sweep("x=0,1")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "work: 2 trials: 2 to run\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0
    assert [row["state"] for row in project.trials()] == ["SUCCEEDED"] * 2


def test_what_is_kept_of_a_trial(project: Project) -> None:
    project.sweep("x=2,3")
    (trial,) = project.trials("--where", "x=3")
    assert trial["state"] == "SUCCEEDED"
    assert trial["overrides"] == {"x": 3}
    assert trial["metrics"] == {"loss": 1.0}
    assert trial["attempts"] == 1
    folder = project.runs / "work" / "trials" / trial["trial_id"]
    assert (folder / "files" / "result.txt").read_text() == "3"
    assert (folder / "attempt-1.log").read_text() == f"hello from {trial['trial_id']} attempt 1\n"
    assert "hello from" in project.run("logs", trial["trial_id"][:6])
    row, *_ = project.query(
        "SELECT node, gpus, pid, threads, method, started < ended, entered <= returned FROM attempt LIMIT 1"
    )
    assert row[1] in [f'["{index}"]' for index in range(4)]
    assert row[3:] == (1, "fork", 1, 1)
    (shown,) = project.json("show", trial["trial_id"], "--json")
    assert [row["step"] for row in shown["series"]] == [0, 1, 2, 3]
    assert shown["rerun"].startswith("orchestrate resubmit work --trial")
    assert (project.runs / ".gitignore").read_text() == "*\n"
    assert sorted(path.name for path in (project.runs / "work").glob("manifest.db*")) == ["manifest.db"]


def test_a_failing_trial_ends_no_sweep(project: Project) -> None:
    out = project.sweep("do=odd", code=1)
    line = 1 + TRAINER.splitlines().index('            raise ValueError("x is odd")')
    assert f"work.py:{line}: ValueError: x is odd" in out
    assert "Traceback" not in out
    assert project.counts() == {"SUCCEEDED": 2, "FAILED": 2}
    again = project.sweep("do=odd", code=1)
    assert "4 trials: 2 done, 2 failed (orchestrate resubmit), 0 to run" in again
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


def test_resubmit_with_other_resources(project: Project) -> None:
    project.sweep("do=fail", "x=0", code=1)
    out = project.run("resubmit", "--set", "sweep.resources.gpus=9", code=2)
    assert "a trial asks for GPU 9" in out
    out = project.run("resubmit", "--set", "sweep.resources.cpus=2", "--set", f"meet={project.root}", code=1)
    assert "1 trial again" in out
    assert project.query("SELECT attempt, threads FROM attempt") == [(1, 1), (2, 2)]
    (shown,) = project.json("show", project.trials()[0]["trial_id"], "--json")
    assert shown["config"]["meet"] == str(project.root)


def test_out_of_memory_is_tried_again_alone(project: Project) -> None:
    """All cpus of its node are its own, though not its threads; trials that came later may run first."""
    trainer = (project.root / "work.py").read_text()
    (project.root / "work.py").write_text(
        trainer.replace(
            'if cfg.do == "exit"',
            """if cfg.x == 0 and run.attempt == 1:
            raise MemoryError
        if cfg.do == "exit\"""",
        )
    )
    project.sweep("x=range(0,12)")
    attempts = project.query("SELECT node_id, started, ended, trial, attempt, threads FROM attempt")
    ((node, begun, over, alone, _, threads),) = [row for row in attempts if row[4] == 2]
    assert threads == 1
    beside = [row for row in attempts if row[0] == node and row[3] != alone and row[1] < over and begun < row[2]]
    assert beside == []


def test_files_in_another_place(project: Project) -> None:
    store = project.root / "disk" / "store"
    words = ("do=once", "x=0", "save=true", "sweep.retries=1", f"sweep.storage={store}")
    project.sweep(*words)
    assert project.query("SELECT attempt, restored FROM attempt") == [(1, None), (2, 1)]
    trial_id = project.trials()[0]["trial_id"]
    (files,) = store.glob(f"work-*/trials/{trial_id}")
    assert (files / "files" / "result.txt").read_text() == "0"
    assert list((files / "checkpoints").iterdir())
    own = project.runs / "work" / "trials" / trial_id
    assert sorted(path.name for path in own.iterdir()) == ["attempt-1.log", "attempt-2.log"]
    assert f"files  {files.relative_to(project.root)}" in project.run("show", trial_id)


def test_a_place_for_files_that_cannot_be_written(project: Project) -> None:
    (project.root / "file").touch()
    out = project.sweep("sweep.storage=file/store", code=2)
    assert out.startswith("orchestrate: sweep.storage: ")
    assert "cannot write: Not a directory" in out
    assert not (project.runs / "work").exists()
    assert "a folder on a file system" in project.sweep("sweep.storage=s3://bucket", code=2)


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep.trainer=wrok:train"], "no module named 'wrok'"),
        (["sweep.trainer=work:trian"], "did you mean work:train?"),
        (["sweep.resources.gpus=64"], "no node has that"),
        (["y=1,2"], "y"),
        (["sweep.nmae=z"], "name"),
    ],
)
def test_a_mistake_writes_nothing(project: Project, words: list[str], message: str) -> None:
    out = project.sweep(*words, code=2)
    assert message in out
    assert "Traceback" not in out
    assert not project.runs.exists()


def test_detached(project: Project) -> None:
    out = project.sweep("do=hold", "x=0,1", "--detach")
    assert "orchestrate status work --watch" in out
    until(lambda: len(project.waiting()) == 2)
    assert project.counts() == {"RUNNING": 2}
    project.go()
    assert "2/2  2 succeeded" in project.run("status", "--watch")
    assert "2 trials: 2 succeeded" in until((project.runs / "work" / "sweep.log").read_text)


def test_the_live_view(project: Project) -> None:
    """On a terminal: one picture, drawn in place."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", "sweep", "conf/sweep.yaml", f"meet={project.meet}"],
        cwd=project.root,
        env={**os.environ, "RAY_ADDRESS": project.address or "", "TERM": "xterm-256color", "COLUMNS": "120"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    while True:
        if not select.select([master], [], [], 120)[0]:
            process.kill()
            break
        try:
            block = os.read(master, 65536)
        except OSError:
            break
        shown += block
    os.close(master)
    assert process.wait() == 0
    text = shown.decode()
    assert "4/4" in text
    assert "4 succeeded" in text
    assert "best" in text
    assert "\x1b[" in text
