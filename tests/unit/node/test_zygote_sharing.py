"""A zygote that workers share: who gets a copy, who keeps it alive, and that its trials are like those of any other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.coordinator.trainer_check import TrainerCheck
from orchestrator.model.order import Order
from orchestrator.node.launch import zygote_sharing
from orchestrator.node.launch.zygote_host import Host
from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.node.shared import messages, processes
from orchestrator.node.shared.process_settings import current_settings
from orchestrator.node.shared.zygote_spec import ZygoteSpec
from tests.unit.node.support import Result, alive, file, order, run, stream, wait_for_exit

ROOT = Path(__file__).parents[3]
TRAINER = """
import json, os, random, re, resource, sys, time
from pathlib import Path

HERE = Path(__file__).parent
first = not (HERE / "imported").exists()
with open(HERE / "imported", "a") as pids:
    pids.write(f"{os.readlink('/proc/self')}\\n")
print("importing", flush=True)
SEEN = os.environ["CUDA_VISIBLE_DEVICES"]
while first and (HERE / "hold").exists():
    time.sleep(0.01)

def train(cfg, run):
    facts = {"env": dict(os.environ), "path": sys.path, "argv": sys.argv, "cwd": os.getcwd(), "nice": os.nice(0)}
    facts["oom"] = open("/proc/self/oom_score_adj").read()
    facts["limits"] = [resource.getrlimit(resource.RLIMIT_NOFILE), len(os.sched_getaffinity(0)), os.umask(0o22)]
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    facts["files"] = sorted(re.split(r":\\[|#", os.readlink(link))[0] for link in links if os.path.exists(link))
    facts["signals"] = [line for line in open("/proc/self/status") if line.startswith("Sig")]
    facts["seen"] = SEEN
    facts["chance"] = [hash("x"), random.random()]
    (run.dir / "facts").write_text(json.dumps(facts))
    print("training", flush=True)
    if cfg.get("wait"):
        (HERE / "waits").write_text("")
        time.sleep(600)
"""
COORDINATOR = """
import sys, time
from orchestrator.node.shared.zygote_spec import ZygoteSpec
from orchestrator.coordinator.trainer_check import TrainerCheck
from tests.unit.node.support import order
from pathlib import Path
folder = Path(sys.argv[1])
check = TrainerCheck(ZygoteSpec.of(order(folder, "early:train", import_path=(str(folder),)), ()), shared=True)
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
from orchestrator.node.launch.zygote_pool import ZygotePool
from tests.unit.node.support import order, stream
folder = Path(sys.argv[1])
def asked():
    if (folder / "waits").exists():
        print("ready", flush=True)
wanted = order(folder, "early:train", {"wait": True}, import_path=(str(folder),))
for batch in stream(wanted, ZygotePool(), asked=asked):
    pass
"""
IMPORTER = """
import sys, time
from pathlib import Path
from orchestrator.node.launch.zygote_pool import ZygotePool
from tests.unit.node.support import order, stream
folder = Path(sys.argv[1])
def asked():
    if (folder / "imported").exists() and (folder / "imported").read_text():
        print("ready", flush=True)
for batch in stream(order(folder, "early:train", import_path=(str(folder),)), ZygotePool(), asked=asked):
    pass
time.sleep(600)
"""
TWICE = """
import json, os, resource, sys
from pathlib import Path
from orchestrator.node.launch import zygote_sharing
from orchestrator.node.shared.process_settings import ProcessSettings, apply_settings
from orchestrator.node.launch.zygote_pool import ZygotePool
from tests.unit.node.support import file, order, run
folder = Path(sys.argv[1])
wanted = order(folder, "early:train", import_path=(str(folder),))
cpus = frozenset(sorted(os.sched_getaffinity(0))[:1])
limits = ((resource.RLIMIT_NOFILE, (500, 600)),)
apply_settings(ProcessSettings(nice=19, oom_score_adj=500, cpus=cpus, umask=0o77, limits=limits))
found = []
for _ in range(2):
    zygote_pool = ZygotePool()
    run(wanted, zygote_pool)
    zygote_pool.close()
    found.append(file(wanted, "facts"))
    os.environ.pop(zygote_sharing.NAME, None)
print(json.dumps(found))
"""


@pytest.fixture(autouse=True)
def name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a sweep's workers."""
    monkeypatch.setenv(zygote_sharing.NAME, zygote_sharing.new_name())


@pytest.fixture
def wanted(tmp_path: Path) -> Order:
    (tmp_path / "early.py").write_text(TRAINER)
    return order(tmp_path, "early:train", import_path=(str(tmp_path),))


@pytest.fixture
def zygote_pool() -> Iterator[ZygotePool]:
    made = ZygotePool()
    yield made
    made.close()


@pytest.fixture
def early(wanted: Order) -> Iterator[TrainerCheck]:
    """A shared zygote for trials of this order, started by the coordinator before any worker."""
    check = TrainerCheck(ZygoteSpec.of(wanted, ()), shared=True)
    check.result()
    yield check
    check.close()


def imported(folder: Path) -> list[int]:
    """The pids of all processes that have imported the trainer."""
    return [int(pid) for pid in (folder / "imported").read_text().split()]


def start(script: str, *words: object) -> subprocess.Popen[str]:
    """A process that prints "ready" when it is."""
    command = [sys.executable, "-c", script, *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.usefixtures("early")
def test_the_first_trial_does_not_import_again(tmp_path: Path, wanted: Order, zygote_pool: ZygotePool) -> None:
    first, second = run(wanted, zygote_pool), run(wanted, zygote_pool)
    assert (first.log, second.log) == ("importing\ntraining\n", "training\n")
    assert first.started.pid != second.started.pid
    assert len(imported(tmp_path)) == 1


@pytest.mark.usefixtures("early")
def test_its_trials_are_like_those_of_a_workers_own_zygote(tmp_path: Path, wanted: Order) -> None:
    """Also where the worker has a lower priority and a higher out-of-memory score, as Ray's workers have."""
    command = [sys.executable, "-c", TWICE, str(tmp_path)]
    shared, own = json.loads(subprocess.check_output(command, cwd=ROOT, env=dict(os.environ), text=True))
    assert len(imported(tmp_path)) == 2
    for facts in (shared, own):
        facts["env"].pop("PYTEST_CURRENT_TEST", None)
    assert shared == own
    assert (shared["nice"], int(shared["oom"])) == (19, 500)
    assert shared["limits"] == [[500, 600], 1, 0o77]
    assert zygote_sharing.NAME not in shared["env"]


@pytest.mark.usefixtures("early")
def test_the_kernel_kills_a_trial_before_its_coordinator(wanted: Order, zygote_pool: ZygotePool) -> None:
    """When memory runs out, it kills the process with the highest score; a trial's is raised."""
    run(wanted, zygote_pool)
    assert int(file(wanted, "facts")["oom"]) == max(300, current_settings().oom_score_adj)


@pytest.mark.usefixtures("early")
def test_every_worker_gets_a_copy(tmp_path: Path, wanted: Order, zygote_pool: ZygotePool) -> None:
    """The copies share the import, and nothing else."""
    another = ZygotePool()
    first, second = run(wanted, zygote_pool), run(wanted, another)
    assert (first.log, second.log) == ("importing\ntraining\n",) * 2
    another.close()
    assert run(wanted, zygote_pool).ended.exit_code == 0
    assert len(imported(tmp_path)) == 1


def test_a_zygote_whose_import_saw_one_gpu_serves_trials_with_one_gpu(
    tmp_path: Path, wanted: Order, zygote_pool: ZygotePool
) -> None:
    check = TrainerCheck(ZygoteSpec.of(wanted, ("1",)), ("1",), shared=True)
    check.result()
    assert run(wanted, zygote_pool, gpus=("0",)).ended.exit_code == 0
    assert file(wanted, "facts")["env"]["CUDA_VISIBLE_DEVICES"] == "0"
    assert file(wanted, "facts")["seen"] == "1"
    assert len(imported(tmp_path)) == 1
    check.close()


def test_copies_die_with_the_coordinator(
    tmp_path: Path, wanted: Order, early: TrainerCheck, zygote_pool: ZygotePool
) -> None:
    run(wanted, zygote_pool)
    (pid,) = imported(tmp_path)
    keeper, copy = processes.descendants(pid)
    early.close()
    for each in (pid, keeper, copy):
        wait_for_exit(each)


@pytest.mark.parametrize("phase", ["importing", "imported"])
def test_the_zygote_dies_with_the_coordinator(tmp_path: Path, wanted: Order, phase: str) -> None:
    if phase == "importing":
        (tmp_path / "hold").write_text("")
    coordinator = start(COORDINATOR, tmp_path, phase)
    (pid,) = imported(tmp_path)
    keeper = processes.parent(pid)
    assert keeper
    kill(coordinator)
    wait_for_exit(pid)
    wait_for_exit(keeper)


@pytest.mark.usefixtures("early")
def test_a_copy_dies_with_its_worker(tmp_path: Path, wanted: Order) -> None:
    worker = start(WORKER, tmp_path)
    (pid,) = imported(tmp_path)
    tree = processes.descendants(pid)
    assert len(tree) == 3  # keeper, copy, trial
    kill(worker)
    for each in tree:
        wait_for_exit(each)
    assert alive(pid)


@pytest.mark.usefixtures("early")
@pytest.mark.parametrize("other", [{"gpus": ["0"]}, {"deterministic": "off"}])
def test_a_trial_of_another_spec_gets_another_zygote(
    tmp_path: Path, wanted: Order, zygote_pool: ZygotePool, other: dict[str, Any]
) -> None:
    gpus = other.pop("gpus", ())
    different = order(tmp_path, "early:train", import_path=(str(tmp_path),), **other)
    assert run(different, zygote_pool, gpus=gpus).ended.exit_code == 0
    assert len(imported(tmp_path)) == 2


@pytest.mark.usefixtures("early")
def test_a_host_of_another_user_is_not_trusted(wanted: Order) -> None:
    def start(listener: socket.socket) -> None:
        pytest.fail("there is a host already")

    spec = ZygoteSpec.of(wanted, ())
    assert zygote_sharing.connect(spec, start, user=os.getuid() + 1) is None
    connection = zygote_sharing.connect(spec, start)
    assert connection
    connection.close()


@pytest.mark.parametrize("owned", [True, False])
def test_a_module_that_cannot_be_forked_is_reported_as_without_sharing(
    tmp_path: Path, zygote_pool: ZygotePool, owned: bool
) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "def train(cfg, run): pass\n"
    )
    wanted = order(tmp_path, "threaded:train", import_path=(str(tmp_path),))
    check = TrainerCheck(ZygoteSpec.of(wanted, ()), shared=owned)
    check.result()
    result = run(wanted, zygote_pool)
    check.close()
    assert "threaded cannot be forked: when it is imported, threaded.py:2 starts threads" in result.notices[0]
    assert result.started.method == "spawn"
    assert result.ended.exit_code == 0


# ---------------------------------------------------------------- without a coordinator on the machine


def test_workers_share_the_zygote_that_the_first_one_starts(
    tmp_path: Path, wanted: Order, zygote_pool: ZygotePool
) -> None:
    another = ZygotePool()
    first, second = run(wanted, zygote_pool), run(wanted, another)
    assert (first.log, second.log) == ("importing\ntraining\n",) * 2
    (pid,) = imported(tmp_path)
    zygote_pool.close()
    assert run(wanted, another).ended.exit_code == 0
    assert imported(tmp_path) == [pid]
    another.close()
    wait_for_exit(pid)  # no worker is connected
    assert run(wanted, zygote_pool).ended.exit_code == 0
    assert len(imported(tmp_path)) == 2


def test_the_zygote_outlives_the_worker_that_started_it(tmp_path: Path, wanted: Order, zygote_pool: ZygotePool) -> None:
    worker = start(WORKER, tmp_path)
    (pid,) = imported(tmp_path)
    assert run(wanted, zygote_pool).ended.exit_code == 0
    kill(worker)
    assert run(wanted, zygote_pool).ended.exit_code == 0
    assert imported(tmp_path) == [pid]
    zygote_pool.close()
    wait_for_exit(pid)


def test_the_zygote_ends_if_all_its_workers_die_during_the_import(tmp_path: Path, wanted: Order) -> None:
    (tmp_path / "hold").write_text("")
    workers = [start(IMPORTER, tmp_path) for _ in range(2)]
    (pid,) = imported(tmp_path)
    for worker in workers:
        assert alive(pid)
        kill(worker)
    wait_for_exit(pid)


def test_a_trial_that_is_stopped_does_not_end_the_import_for_others(
    tmp_path: Path, wanted: Order, zygote_pool: ZygotePool
) -> None:
    (tmp_path / "hold").write_text("")
    worker = start(IMPORTER, tmp_path)  # has started the import
    stopped = run(wanted, zygote_pool, asked=lambda: "stop")
    assert stopped.ended.asked == "stop"
    assert stopped.log == "importing\n"
    (pid,) = imported(tmp_path)
    assert alive(pid)
    (tmp_path / "hold").unlink()
    assert run(wanted, zygote_pool).ended.exit_code == 0
    assert imported(tmp_path) == [pid]
    kill(worker)


def test_an_import_that_ends_the_process_fails_all_waiting_trials(tmp_path: Path) -> None:
    (tmp_path / "vanishes.py").write_text(
        "import os, time\nfrom pathlib import Path\n"
        "print('last words', flush=True)\n"
        "while not Path(__file__).with_name('leave').exists(): time.sleep(0.01)\nos._exit(7)\n"
    )
    wanted = order(tmp_path, "vanishes:train", import_path=(str(tmp_path),))
    pools = [ZygotePool(), ZygotePool()]
    streams = [stream(wanted, zygote_pool, asked=(tmp_path / "leave").touch) for zygote_pool in pools]
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda batches: Result(list(batches)), streams))
    for result in results:
        assert result.ended.exit_code == 7
        assert result.log == "last words\n"
        assert result.ended.detail == "while the trainer's module was imported"
    for zygote_pool in pools:
        zygote_pool.close()


def test_a_worker_gives_up_on_an_import_that_hangs(tmp_path: Path, wanted: Order, zygote_pool: ZygotePool) -> None:
    (tmp_path / "hold").write_text("")
    worker = start(IMPORTER, tmp_path)  # waits without a limit
    assert run(replace(wanted, timeout=0.1), zygote_pool).ended.asked == "timeout"
    assert run(wanted, zygote_pool).ended.exit_code == 0
    assert len(imported(tmp_path)) == 2
    kill(worker)


def test_a_failed_import_fails_the_first_trial_and_is_repeated_for_the_next(
    tmp_path: Path, zygote_pool: ZygotePool
) -> None:
    (tmp_path / "fails.py").write_text(
        "import json\nif hasattr(json, 'again'): raise KeyError('again')\n"
        "json.again = True\nprint('once')\nraise OSError('the reason')\n"
    )
    wanted = order(tmp_path, "fails:train", import_path=(str(tmp_path),))
    first, second = run(wanted, zygote_pool), run(wanted, zygote_pool)
    assert first.ended.failure
    assert second.ended.failure
    assert "the reason" in first.ended.failure.message
    assert "again" in second.ended.failure.message
    assert first.log.count("once") == 1


def test_no_attempt_is_lost_if_the_host_is_killed(tmp_path: Path, wanted: Order, zygote_pool: ZygotePool) -> None:
    run(wanted, zygote_pool)
    (pid,) = imported(tmp_path)
    keeper = processes.parent(pid)
    assert keeper
    host = processes.parent(keeper)
    assert host
    os.kill(host, signal.SIGKILL)
    wait_for_exit(pid)
    assert run(wanted, zygote_pool).ended.exit_code == 0
    assert len(imported(tmp_path)) == 2


def test_trials_with_the_same_number_of_gpus_share_a_zygote(
    tmp_path: Path, wanted: Order, zygote_pool: ZygotePool
) -> None:
    another, third = ZygotePool(), ZygotePool()
    for each, gpus in ((zygote_pool, ("0",)), (another, ("1",)), (third, ("2", "3"))):
        result = run(wanted, each, gpus=gpus)
        assert result.started.gpus == gpus
        assert file(wanted, "facts")["env"]["CUDA_VISIBLE_DEVICES"] == ",".join(gpus)
    assert len(imported(tmp_path)) == 2  # a module may count the GPUs
    for gpus in (("2", "3"), ("0",)):  # a worker that changes its spec does not import again
        assert run(wanted, zygote_pool, gpus=gpus).ended.exit_code == 0
    assert len(imported(tmp_path)) == 2
    another.close()
    third.close()


def test_a_host_that_ends_serves_a_connection_it_has_not_accepted_yet(wanted: Order) -> None:
    """No worker is lost: one that could still connect is served, and the next one starts another host."""
    listeners: list[socket.socket] = []
    spec = ZygoteSpec.of(wanted, ())
    with contextlib.ExitStack() as closing:

        def connect() -> None:
            connection = zygote_sharing.connect(spec, lambda listener: listeners.append(listener.dup()))
            assert connection
            closing.enter_context(connection)

        connect()
        channel, zygote = messages.channel_pair()
        host = Host(closing.enter_context(listeners[0]), channel, -1)
        assert host.accept_last()
        assert host.accept_last(), "it knows that there is a connection"
        connect()
        assert len(listeners) == 2
        closing.enter_context(listeners[1])
        zygote.close()
        host.close()
