"""A zygote that was started early: who gets it, who keeps it alive, and that its trials are like any other's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.model import Order
from orchestrator.node import handover, processes
from orchestrator.node.kind import Kind
from orchestrator.node.nursery import Nursery
from orchestrator.trainer_check import TrainerCheck
from tests.unit.node_support import alive, order, run, wait_gone

ROOT = Path(__file__).parents[2]
TRAINER = """
import json, os, random, sys, time
from pathlib import Path

HERE = Path(__file__).parent
with open(HERE / "imported", "a") as pids:
    pids.write(f"{os.getpid()}\\n")
print("importing")
while (HERE / "hold").exists():
    time.sleep(0.01)

def train(cfg, run):
    facts = {"env": dict(os.environ), "path": sys.path, "argv": sys.argv, "cwd": os.getcwd(), "nice": os.nice(0)}
    facts["oom"] = open("/proc/self/oom_score_adj").read()
    facts["signals"] = [line for line in open("/proc/self/status") if line.startswith("Sig")]
    facts["chance"] = [hash("x"), random.random()]
    (run.dir / "facts").write_text(json.dumps(facts))
    print("training", flush=True)
    if cfg.get("wait"):
        (HERE / "waits").write_text("")
        time.sleep(600)
"""
COORDINATOR = """
import sys, time
from orchestrator.node.kind import Kind
from orchestrator.trainer_check import TrainerCheck
from tests.unit.node_support import order
from pathlib import Path
folder = Path(sys.argv[1])
check = TrainerCheck(Kind.of(order(folder, "early:train", import_path=(str(folder),)), ()), offered=True)
if sys.argv[2] == "imported":
    check.result()
while not ((folder / "imported").exists() and (folder / "imported").read_text()):
    time.sleep(0.01)
print("ready", flush=True)
sys.stdin.read()
"""
WORKER = """
import sys
from pathlib import Path
from orchestrator.node.nursery import Nursery
from tests.unit.node_support import order, stream
folder = Path(sys.argv[1])
def asked():
    if (folder / "waits").exists():
        print("ready", flush=True)
wanted = order(folder, "early:train", {"wait": True}, import_path=(str(folder),))
for batch in stream(wanted, Nursery(), asked=asked):
    pass
"""
TWICE = """
import json, os, sys
from pathlib import Path
from orchestrator.node import handover, processes
from orchestrator.node.nursery import Nursery
from tests.unit.node_support import file, order, run
folder = Path(sys.argv[1])
wanted = order(folder, "early:train", import_path=(str(folder),))
processes.stand(19, 500)
found = []
for _ in range(2):
    nursery = Nursery()
    run(wanted, nursery)
    nursery.close()
    found.append(file(wanted, "facts"))
    os.environ.pop(handover.ADDRESS, None)
print(json.dumps(found))
"""


@pytest.fixture
def wanted(tmp_path: Path) -> Order:
    (tmp_path / "early.py").write_text(TRAINER)
    return order(tmp_path, "early:train", import_path=(str(tmp_path),))


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def early(wanted: Order) -> Iterator[TrainerCheck]:
    """A zygote on offer, for trials of this order."""
    check = TrainerCheck(Kind.of(wanted, ()), offered=True)
    check.result()
    yield check
    check.close()


def imported(folder: Path) -> list[int]:
    """The processes that have imported the trainer."""
    return [int(pid) for pid in (folder / "imported").read_text().split()]


def start(script: str, *words: object) -> subprocess.Popen[str]:
    """A process that says when it is ready."""
    command = [sys.executable, "-c", script, *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.usefixtures("early")
def test_the_first_trial_needs_no_second_import(tmp_path: Path, wanted: Order, nursery: Nursery) -> None:
    first, second = run(wanted, nursery), run(wanted, nursery)
    assert (first.log, second.log) == ("importing\ntraining\n", "training\n")
    assert first.started.pid != second.started.pid
    assert len(imported(tmp_path)) == 1


@pytest.mark.usefixtures("early")
def test_its_trials_are_like_those_of_a_workers_own(tmp_path: Path, wanted: Order) -> None:
    """The worker stands lower with the scheduler and the out-of-memory killer, as Ray's do."""
    command = [sys.executable, "-c", TWICE, str(tmp_path)]
    mine, own = json.loads(subprocess.check_output(command, cwd=ROOT, env=dict(os.environ), text=True))
    assert len(imported(tmp_path)) == 2
    for facts in (mine, own):
        facts["env"].pop("PYTEST_CURRENT_TEST", None)
    assert mine == own
    assert (mine["nice"], int(mine["oom"])) == (19, 500)
    assert handover.ADDRESS not in mine["env"]


@pytest.mark.usefixtures("early")
def test_every_worker_gets_one(tmp_path: Path, wanted: Order, nursery: Nursery) -> None:
    """They share the import, and nothing else."""
    another = Nursery()
    first, second = run(wanted, nursery), run(wanted, another)
    assert (first.log, second.log) == ("importing\ntraining\n",) * 2
    another.close()
    assert run(wanted, nursery).ended.exit_code == 0
    assert len(imported(tmp_path)) == 1


def test_copies_die_with_the_coordinator(tmp_path: Path, wanted: Order, early: TrainerCheck, nursery: Nursery) -> None:
    run(wanted, nursery)
    (pid,) = imported(tmp_path)
    keeper, copy = processes.descendants(pid)
    early.close()
    for each in (pid, keeper, copy):
        wait_gone(each)


@pytest.mark.parametrize("phase", ["importing", "imported"])
def test_it_dies_with_the_coordinator(tmp_path: Path, wanted: Order, phase: str) -> None:
    if phase == "importing":
        (tmp_path / "hold").write_text("")
    coordinator = start(COORDINATOR, tmp_path, phase)
    (pid,) = imported(tmp_path)
    keeper = processes.parent(pid)
    assert keeper
    kill(coordinator)
    wait_gone(pid)
    wait_gone(keeper)


@pytest.mark.usefixtures("early")
def test_it_dies_with_its_worker(tmp_path: Path, wanted: Order) -> None:
    worker = start(WORKER, tmp_path)
    (pid,) = imported(tmp_path)
    tree = processes.descendants(pid)
    assert len(tree) == 3  # keeper, copy, trial
    kill(worker)
    for each in tree:
        wait_gone(each)
    assert alive(pid)


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("other", [{"gpus": ["0"]}, {"deterministic": "off"}])
def test_another_kind_is_not_given_it(tmp_path: Path, wanted: Order, nursery: Nursery, other: dict[str, Any]) -> None:
    gpus = other.pop("gpus", ())
    unlike = order(tmp_path, "early:train", import_path=(str(tmp_path),), **other)
    assert run(unlike, nursery, gpus=gpus).ended.exit_code == 0
    assert len(imported(tmp_path)) == 2


def test_a_stranger_gets_nothing(wanted: Order, early: TrainerCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "getuid", lambda: -1)
        assert handover.ask(Kind.of(wanted, ())) is None


def test_one_that_is_refused_is_not_waited_for(tmp_path: Path, wanted: Order, nursery: Nursery) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(handover.ADDRESS, "orchestrate-nobody")
        assert run(wanted, nursery).ended.exit_code == 0


def test_what_cannot_be_forked_is_said_as_ever(tmp_path: Path, nursery: Nursery) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "def train(cfg, run): pass\n"
    )
    wanted = order(tmp_path, "threaded:train", import_path=(str(tmp_path),))
    check = TrainerCheck(Kind.of(wanted, ()), offered=True)
    check.result()
    result = run(wanted, nursery)
    check.close()
    assert "threaded cannot be forked: it starts threads" in result.notices[0]
    assert result.started.method == "spawn"
    assert result.ended.exit_code == 0
