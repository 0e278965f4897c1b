"""Ray that starts with the sweep and ends with it: without a cluster, a sweep brings its own."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.executors.gpus import LOCKS
from orchestrator.interpreter import command
from tests import nvml
from tests.ray.support import Project, alive, until


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder that is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="o-") as root:
        yield Path(root)


def test_alone_without_a_cluster(alone: Project) -> None:
    """A GPU that is not there is a clear message, and nothing is written."""
    alone.env["HOME"] = str(alone.root)
    out = alone.sweep(code=2)
    assert "a trial asks for GPU 1, CPU 1, and no node has that" in out
    assert "cpus, 0 gpus" in out
    assert "sweep.resources.gpus=0" in out
    assert not alone.runs.exists()
    out = alone.sweep("sweep.resources.gpus=auto")
    assert "4 trials: 4 succeeded" in out
    assert out.splitlines()[-1].startswith("orchestrate trials work")  # nothing on stderr
    assert not (alone.root / ".ray").exists()  # Ray writes no token to HOME


def test_alone_the_first_trial_needs_no_second_import(alone: Project) -> None:
    """The process that has checked the trainer while Ray started is the one that the first trial is forked from.

    TMPDIR is as long as batch systems make them: too long for Ray's sockets.
    """
    alone.env["TMPDIR"] = str(alone.root / (60 * "x"))
    (alone.root / (60 * "x")).mkdir()
    with open(alone.root / "work.py", "a", encoding="utf-8") as trainer:
        trainer.write("\nwith open('imported', 'a') as pids:\n    print(os.readlink('/proc/self'), file=pids)\n")
    out = alone.sweep("sweep.resources.gpus=0", "x=3", "steps=1")
    (note,) = [line for line in out.splitlines() if line.startswith("note: ")]
    assert note.startswith(f"note: TMPDIR={alone.env['TMPDIR']} (too long for Ray's sockets): Ray keeps its files in /")
    assert not Path(note.rpartition(" in ")[2]).exists()
    (pid,) = map(int, (alone.root / "imported").read_text().split())
    assert not alive(pid)
    assert alone.query("SELECT method FROM attempt") == [("fork",)]


def test_a_project_whose_modules_are_named_as_those_of_python_and_ray(alone: Project) -> None:
    """Nothing that we start imports them, in the foreground and in the background. TMPDIR is relative."""
    names = {name for name in sys.stdlib_module_names if not name.startswith("_")}
    for name in names | {"orchestrator", "ray", "numpy", "pynvml", "wandb", "yaml"}:
        (alone.root / f"{name}.py").write_text(f"raise RuntimeError('the {name}.py of the project')\n")
    (alone.root / "plain.py").write_text(
        "def train(cfg, run):\n    run.save(1)\n    if cfg.x:\n        raise ValueError('x')\n    return 0.5\n"
    )
    alone.command = tuple(command("orchestrator.cli.main", "main"))
    alone.env["TMPDIR"] = "tmp"
    (alone.root / "tmp").mkdir()
    words = ("sweep.trainer=plain:train", "x=0,1", "sweep.resources.gpus=0", "sweep.tracking={jsonl: out.jsonl}")
    alone.sweep(*words, "-d")
    alone.run("status", "--watch")
    log = alone.runs / "work" / "sweep.log"
    until(lambda: "compares them" in log.read_text())
    assert "ValueError: x" in log.read_text()
    assert [row["state"] for row in alone.trials()] == ["SUCCEEDED", "FAILED"]
    assert list((alone.root / "tmp").glob("ray-*")) == []


def test_try(alone: Project) -> None:
    out = alone.run("try", "conf/sweep.yaml", "x=2")
    assert "hello from" in out
    assert "loss" in out
    assert not alone.runs.exists()
    failed = alone.run("try", "conf/sweep.yaml", "do=fail", code=1)
    assert "ValueError: bad value 0" in failed


def test_killed_while_it_starts(alone: Project) -> None:
    """The trainer is imported early, by a process that no worker holds yet."""
    with open(alone.root / "work.py", "a", encoding="utf-8") as trainer:
        trainer.write("\nopen('imported', 'w').write(str(os.getpid()))\ntime.sleep(600)\n")
    process = alone.start_sweep("sweep.resources.gpus=0")
    imported = alone.root / "imported"
    pid = int(until(lambda: imported.exists() and imported.read_text(), process))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    until(lambda: not alive(pid))


@pytest.mark.fault(
    "coordinator",
    "`kill -9`",
    "Ray, embedded: while two trials run whose children hide",
    "no process is left; the same command goes on",
)
def test_killed_while_alone(alone: Project, short: Path) -> None:
    """Embedded Ray goes with its coordinator, and all below it; its files go with the next sweep."""
    alone.env["RAY_TMPDIR"] = str(short)
    process = alone.start_sweep("do=orphan", "sweep.resources.gpus=0", "x=0,1")
    pids = alone.until_waiting(2, process)
    orphans = alone.until_orphans(2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    until(lambda: not any(map(alive, pids + orphans)))
    assert len(list(short.iterdir())) == 1
    alone.go()
    assert "2 trials: 2 succeeded" in alone.sweep("do=orphan", "sweep.resources.gpus=0", "x=0,1")
    assert list(short.iterdir()) == []


@pytest.mark.fault(
    "coordinator",
    "`kill -9`",
    "Ray, embedded: at random instants, from its start to its end",
    "no process is left; no trial succeeds twice, each step is there once",
)
@pytest.mark.campaign
def test_killed_at_any_instant_with_ray(alone: Project, record_property: Any) -> None:
    words = ("x=range(0,40)", "save=true", "steps=300", "sweep.resources.gpus=0")
    draw, landed = random.Random(5), 0
    for _ in range(10):
        process = alone.start_sweep(*words)
        try:
            process.communicate(timeout=draw.uniform(0.2, 6.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            landed += 1
    record_property("times", landed)
    alone.sweep(*words)
    until(lambda: not alone.processes())
    assert alone.counts() == {"SUCCEEDED": 40}
    assert alone.query("SELECT count(*) FROM attempt WHERE state = 'SUCCEEDED' GROUP BY trial") == [(1,)] * 40
    assert alone.query("SELECT count(*), count(DISTINCT step) FROM reports GROUP BY trial_id") == [(300, 300)] * 40


def test_trials_on_mig_devices(alone: Project, tmp_path: Path) -> None:
    """The sweep waits until one is idle; each trial sees one of those it has claimed; a busy GPU is left alone."""
    nvml.build(tmp_path)
    busy, *migs = (f"{kind}-{uuid.uuid4()}" for kind in ("GPU", "MIG", "MIG"))  # no other test locks these
    lines = [f"gpu {busy} NVIDIA_L4 23034 10 {2**30} -", "gpu GPU-divided NVIDIA_H100 81559 10 - -"]
    lines += [f"mig {name} MIG_3g.40gb 40448 1 - -" for name in migs]
    taken = "".join(f"{line}\n" for line in lines).replace("- -", f"{2**30} -")
    (tmp_path / "devices").write_text(taken)
    alone.env |= {"LD_LIBRARY_PATH": str(tmp_path), "FAKE_NVML": str(tmp_path / "devices")}
    alone.env["CUDA_VISIBLE_DEVICES"] = ",".join(["0", *migs])
    (alone.root / "work.py").write_text(
        "import os\n\ndef train(cfg, run):\n    print('visible:', os.environ['CUDA_VISIBLE_DEVICES'], flush=True)\n"
        "    run.report({'loss': 0.0})\n"
    )
    try:
        assert "others use the GPUs that a trial needs" in alone.sweep("--no-wait", code=2)
        assert not alone.runs.exists()
        alone.sweep("--detach")  # returns although it has to wait
        log = alone.runs / "work" / "sweep.log"
        until(lambda: f"waiting for GPUs that others use: GPU 0 (in use by pid {2**30})" in log.read_text())
        (tmp_path / "devices").write_text("".join(f"{line}\n" for line in lines))
        until(lambda: "4 trials: 4 succeeded" in log.read_text())
        assert f"leaving alone GPU 0 (in use by pid {2**30})" in log.read_text()
    finally:
        for name in (busy, *migs):
            (LOCKS / f"{name}.lock").unlink(missing_ok=True)
    seen = alone.query("SELECT t.trial_id, a.gpus, a.gpu_uuids FROM attempt a JOIN trial t ON t.id = a.trial")
    assert len(seen) == 4
    for trial, ids, uuids in seen:
        (given,) = json.loads(ids)
        assert given in migs
        assert json.loads(uuids) == [given]
        assert alone.run("logs", trial) == f"visible: {given}\n"
