"""A sweep from its file to its results, as a user runs it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys

import pytest

from tests.ray.support import Project, until


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
