"""No process survives; unsafe forks are replaced by fresh processes; import errors are reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.model.events import Batch
from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.node.shared import processes
from orchestrator.ports import ENDING
from tests.unit.node.support import HERE, Result, alive, order, run, stream, wait_for_exit

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_child_that_ignores_sigterm_ends_with_the_attempt(
    tmp_path: Path, zygote_pool: ZygotePool, start: str
) -> None:
    pids = tmp_path / "pids"
    result = run(order(tmp_path, "leaves_stubborn_child", {"pids": str(pids)}, start=start), zygote_pool)
    assert result.ended.exit_code == 0
    trial, grandchild, shared = pids.read_text().split()
    assert int(trial) == result.started.pid
    assert not alive(int(trial))
    assert not alive(int(grandchild))
    assert not Path("/dev/shm", shared).exists()


PARENT = """
import sys
from pathlib import Path
from orchestrator.node.launch.zygote_pool import ZygotePool
from tests.unit.node.support import order, stream
folder, start = Path(sys.argv[1]), sys.argv[2]
wanted = order(folder, "leaves_stubborn_child", {"pids": str(folder / "pids"), "wait": True}, start=start)
zygote_pool = ZygotePool()
def asked():
    if (folder / "pids").exists() and (folder / "pids").read_text().endswith("\\n"):
        print("running", flush=True)
for batch in stream(wanted, zygote_pool, asked=asked):
    pass
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_the_worker(tmp_path: Path, start: str, number: int) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path), start]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "running\n"
        trial, grandchild, shared = (tmp_path / "pids").read_text().split()
        parent = int(Path(f"/proc/{trial}/stat").read_text().rpartition(")")[2].split()[1])
        keeper = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
        assert worker.pid not in (parent, keeper)
        assert os.getsid(parent) == keeper
        worker.send_signal(number)
    for pid in (int(trial), int(grandchild), parent, keeper):
        wait_for_exit(pid)
    assert not Path("/dev/shm", shared).exists()


@pytest.mark.fault(
    "trial",
    "SIGTERM, SIGUSR1 or SIGUSR2 for all processes of a node",
    "a node alone: sent to what starts the trials and watches over them",
    "the trial still has its grace to save",
)
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_an_announced_end_leaves_a_trial_its_grace(tmp_path: Path, zygote_pool: ZygotePool, start: str) -> None:
    batches: list[Batch] = []
    told: list[int] = []

    def asked() -> str | None:
        seen = Result(batches)
        if not told and "ready" in seen.log:
            zygote = processes.parent(seen.started.pid)
            assert zygote is not None
            told.extend(filter(None, (zygote, processes.parent(zygote))))
            for number in ENDING:
                for pid in told:
                    os.kill(pid, number)
        return "terminated" if told else None

    for batch in stream(order(tmp_path, "waits", start=start), zygote_pool, asked=asked):
        batches.append(batch)
    assert len(told) == 2
    assert Result(batches).ended.exit_code == 128 + signal.SIGTERM
    assert Result(batches).log == "ready\ncleaned up\n"


def test_a_killed_zygote_is_a_lost_worker(tmp_path: Path) -> None:
    (tmp_path / "kills.py").write_text(
        "import os, signal, time\n"
        "def train(cfg, run):\n"
        "    while open(f'/proc/{os.getppid()}/stat').read().rpartition(') ')[2][0] != 'S':\n"
        "        pass  # until it has told of this process, and waits\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n"
        "    time.sleep(600)\n"
    )
    zygote_pool = ZygotePool()
    result = run(order(tmp_path, "kills:train", import_path=(str(tmp_path),)), zygote_pool)
    assert result.ended.lost == "worker"
    assert result.ended.detail.startswith("the process that starts trials ended with signal 9")
    assert not alive(result.started.pid)
    assert run(order(tmp_path, "nothing"), zygote_pool).ended.exit_code == 0
    zygote_pool.close()


@pytest.mark.parametrize(
    ("text", "error", "where"),
    [
        ("import no_such_library\n", "ModuleNotFoundError", "broken.py:1"),
        ("x = 1\ny = {}['k']\n", "KeyError", "broken.py:2"),
        ("def train(:\n", "SyntaxError", "broken.py:1"),
        ("import sys\nsys.exit(0)\n", "orchestrator.errors.TrainerError", ""),
        ("", "orchestrator.errors.TrainerError", ""),
    ],
)
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_an_import_error_is_the_trials_failure(tmp_path: Path, text: str, error: str, where: str, start: str) -> None:
    (tmp_path / "broken.py").write_text(text)
    zygote_pool = ZygotePool()
    ended = run(order(tmp_path, "broken:train", import_path=(str(tmp_path),), start=start), zygote_pool).ended
    zygote_pool.close()
    assert ended.failure is not None
    assert ended.exit_code == 1
    assert ended.failure.type == error
    assert ended.failure.where == where or not where
    assert "orchestrator/" not in ended.failure.traceback
    assert "importlib" not in ended.failure.traceback


def test_a_crash_during_an_import_is_reported(tmp_path: Path) -> None:
    (tmp_path / "crashes.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    zygote_pool = ZygotePool()
    ended = run(order(tmp_path, "crashes:train", import_path=(str(tmp_path),)), zygote_pool).ended
    assert ended.signal == signal.SIGSEGV
    assert "imported" in ended.detail


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_module_that_exits_with_0_is_not_a_success(tmp_path: Path, start: str) -> None:
    (tmp_path / "leaves.py").write_text("import os\nos._exit(0)\n")
    wanted = order(tmp_path, "leaves:train", import_path=(str(tmp_path),), start=start)
    zygote_pool = ZygotePool()
    ended = run(wanted, zygote_pool).ended
    zygote_pool.close()
    assert ended.exit_code == 1
    assert ended.failure is not None
    assert "before the trainer was called" in ended.failure.message


def test_a_module_that_starts_a_thread_is_not_forked(tmp_path: Path) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "def train(cfg, run):\n    run.report({'threads': threading.active_count()})\n"
    )
    zygote_pool = ZygotePool()
    wanted = order(tmp_path, "threaded:train", import_path=(str(tmp_path),))
    first, second = run(wanted, zygote_pool), run(wanted, zygote_pool)
    zygote_pool.close()
    assert len(first.notices) == 1
    assert "threaded cannot be forked: when it is imported, threaded.py:2 starts threads" in first.notices[0]
    assert second.notices == []
    for result in (first, second):
        assert result.started.method == "spawn"
        assert result.rows == [(0, {"threads": 2})]


def test_what_an_import_prints_is_in_the_first_trials_log(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text("print('importing')\ndef train(cfg):\n    print('training')\n")
    zygote_pool = ZygotePool()
    wanted = order(tmp_path, "chatty:train", import_path=(str(tmp_path),))
    assert run(wanted, zygote_pool).log == "importing\ntraining\n"
    assert run(wanted, zygote_pool).log == "training\n"
    zygote_pool.close()
    assert HERE not in sys.path  # nothing of a trial reaches the worker
