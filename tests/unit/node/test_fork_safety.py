"""A forked trial equals a fresh process, whatever a module does when it is imported; else it is a fresh process."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.coordinator.trainer_check import TrainerCheck
from orchestrator.node.launch import zygote_sharing
from orchestrator.node.launch.fork_safety import HARMLESS_THREADS, dangers
from orchestrator.node.launch.leftovers import Reason
from orchestrator.node.launch.zygote_pool import ZygotePool
from orchestrator.node.shared.process_settings import current_settings
from orchestrator.node.shared.zygote_spec import ZygoteSpec
from tests.unit.node.support import Result, order, run

ROOT = Path(__file__).parents[3]
LIBRARY = """
import atexit, os, socket, tempfile, uuid, weakref
NAME, PID, FOLDER = uuid.uuid4(), os.getpid(), tempfile.mkdtemp(dir=os.path.dirname(os.path.dirname(__file__)))
atexit.register(lambda: None)
os.register_at_fork(before=lambda: None)
def keep(): pass
weakref.finalize(keep, keep)
with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
def name():
    return uuid.uuid4()
def later():
    import library_part
"""

# What a module of the project does, and what is said about it; HERE is its folder.
DIFFERENT = {
    "LOG = open(HERE + '/log', 'w')": "work.py:3 leaves HERE/log open for writing",
    "import sqlite3; DB = sqlite3.connect(HERE + '/db')": "work.py:3 leaves HERE/db open for writing",
    "import socket; S = socket.socket()": "work.py:3 leaves a socket open",
    "ENDS = os.pipe()": "work.py:3 leaves a pipe open",
    "import select; POLL = select.epoll()": "it leaves anon_inode:[eventpoll] open",
    "import mmap; MEMORY = mmap.mmap(-1, 4096)": "work.py:3 leaves shared memory",
    "import multiprocessing; LOCK = multiprocessing.Lock()": "it leaves shared memory",
    "import subprocess; HELPER = subprocess.Popen(['sleep', '60'])": "work.py:3 leaves a process running (sleep)",
    "import subprocess; ENDED = subprocess.Popen(['false'])": "work.py:3 leaves a process running",
    "COPY = os.dup(1)": "work.py:3 keeps a copy of standard output",
    "F = open(HERE + '/log', 'w'); os.dup2(F.fileno(), 2); F.close()": "work.py:3 replaces standard error",
    "import fcntl; F = open(__file__); fcntl.flock(F, fcntl.LOCK_SH)": "work.py:3 holds a lock on HERE/work.py",
    "F = open('/proc/self/stat')": "work.py:3 leaves /proc/",
    "import signal; signal.alarm(60)": "work.py:3 sets a timer",
    "from threading import *; Thread(target=Event().wait, daemon=True).start()": "work.py:3 starts threads (",
    "import atexit; atexit.register(print)": "work.py:3 registers an exit handler",
    "import weakref\ndef f(): pass\nweakref.finalize(f, f)": "work.py:5 registers a finalizer",
    "os.register_at_fork(before=print)": "work.py:3 registers a handler for forks",
    "import tempfile; FOLDER = tempfile.mkdtemp(dir=HERE)": "work.py:3 makes a temporary file or folder",
    "import tempfile; F = tempfile.NamedTemporaryFile(dir=HERE, delete=False); F.close()": "makes a temporary file",
    "import tempfile; NAME = tempfile.mktemp()": "work.py:3 makes a temporary file or folder",
    "import uuid; NAME = uuid.uuid4()": "work.py:3 draws random numbers from the system",
    "import secrets; NAME = secrets.token_hex()": "work.py:3 draws random numbers from the system",
    "import random; R = random.Random()": "work.py:3 draws random numbers from the system",
    "import numpy; R = numpy.random.default_rng()": "work.py:3 draws random numbers from the system",
    "NAME = f'run-{os.getpid()}'": "work.py:3 asks for its process id",
    "import socket\nwith socket.socket() as s: s.bind(('', 0)); PORT = s.getsockname()": "work.py:4 takes a free port",
    "import library; NAME = library.name()": "work.py:3 draws random numbers from the system",
    "import part": "part.py:1 asks for its process id",
}
# What makes no difference, or is made good in each trial.
EQUAL = """
import library, logging, numpy, random, shutil, subprocess, tempfile, threading, uuid, weakref
from concurrent.futures import ThreadPoolExecutor
library.later()
DATA, FOLDER = open(__file__), os.open(HERE, os.O_RDONLY)
PLACE, SAFE = os.open(HERE, os.O_PATH), os.open(__file__, os.O_RDONLY | os.O_NOFOLLOW)
NULL, RANDOM = open(os.devnull, "w"), open("/dev/urandom", "rb")
open(HERE + "/written", "w").write("once")
with ThreadPoolExecutor(8) as threads:
    list(threads.map(abs, range(100)))
subprocess.run(["true"])
with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as file:
    pass
def dies(): pass
weakref.finalize(dies, print)
weakref.finalize(tempfile, print).atexit = False
del dies
random.Random(7).random()
numpy.random.RandomState(7), numpy.random.default_rng(7)
logging.getLogger("work").warning("imported")
os.umask(0o27)
"""
POOLS = [
    f"from concurrent.futures import ThreadPoolExecutor as Pool\nwith Pool({n}) as p: list(p.map(abs, range(99)))"
    for n in range(4, 14)
]
# Imports each module in a fork of its own, as a zygote would.
IMPORTER = """
import json, os, sys
from pathlib import Path
from orchestrator.node.launch import fork_safety, warm
from orchestrator.node.shared import processes
from orchestrator.node.shared.zygote_spec import ZygoteSpec
from tests.unit.node.support import order
root, sources = Path(sys.argv[1]), json.loads(sys.stdin.read())
for number, source in enumerate(sources):
    folder = root / str(number)
    (folder / "site-packages").mkdir(parents=True)
    for name, text in (("library", sys.argv[2]), ("library_part", sys.argv[2])):
        (folder / "site-packages" / f"{name}.py").write_text(text)
    (folder / "part.py").write_text("import os; PID = os.getpid()")
    path = [str(folder), str(folder / "site-packages")]
    (folder / "work.py").write_text(f"import os\\nHERE = {str(folder)!r}\\n{source}\\ndef train(cfg, run): pass\\n")
    if not os.fork():
        os.dup2(os.open(root / "out", os.O_CREAT | os.O_WRONLY), 1)
        inspection = fork_safety.Inspection(ZygoteSpec.of(order(folder, "work:train", import_path=path), ()))
        with inspection.watching():
            error = warm.preload(ZygoteSpec.of(order(folder, "work:train", import_path=path), ()))
        inspection.judge(error is None)
        why = repr(error) if error else (inspection.unsafe or "").replace(str(folder), "HERE")
        (folder / "why").write_text(why)
        wakeup = processes.watch_children()
        processes.kill_descendants(wakeup)
        os._exit(0)
    os.wait()
print(json.dumps([(root / str(number) / "why").read_text() for number in range(len(sources))]))
"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Each module, and why its trials would not be forked."""
    sources = [*DIFFERENT, EQUAL, *POOLS]
    command = [sys.executable, "-c", IMPORTER, str(tmp_path_factory.mktemp("imports")), LIBRARY]
    done = subprocess.run(command, input=json.dumps(sources), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(sources, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("source", DIFFERENT)
def test_what_forks_would_share_is_seen_and_named(judged: dict[str, str], source: str) -> None:
    assert DIFFERENT[source] in judged[source]
    assert judged[source].startswith("when it is imported, ")


def test_what_a_fresh_process_would_have_too_is_no_reason(judged: dict[str, str]) -> None:
    assert judged[EQUAL] == ""


def test_a_thread_pool_that_was_closed_is_no_reason(judged: dict[str, str]) -> None:
    """A thread exists for a moment after it was joined."""
    assert [judged[source] for source in POOLS] == [""] * len(POOLS)


def test_threads_and_cuda_are_dangers(tmp_path: Path) -> None:
    """Judged by a folder that looks like /proc/self."""

    def add_thread(tid: int, name: str) -> None:
        (tmp_path / "task" / str(tid)).mkdir(parents=True)
        (tmp_path / "task" / str(tid) / "comm").write_text(f"{name}\n")

    (tmp_path / "fd").mkdir()
    (tmp_path / "fd" / "0").symlink_to("/dev/nvidia0")
    add_thread(os.getpid(), "python")
    add_thread(1, *HARMLESS_THREADS)
    assert dangers(str(tmp_path)) == []
    add_thread(2, "loader")
    assert [reason.what for reason in dangers(str(tmp_path), patience=0.0)] == ["starts threads (loader)"]
    (tmp_path / "fd" / "1").symlink_to("/dev/nvidia-uvm")
    assert dangers(str(tmp_path)) == [Reason("initialises CUDA")]


# ------------------------------------------------------------ trials


@pytest.fixture(params=["own", "shared"])
def pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ZygotePool]:
    """With a zygote of its own, or with a copy of one that workers share."""
    if request.param == "shared":
        monkeypatch.setenv(zygote_sharing.NAME, zygote_sharing.new_name())
    made = ZygotePool()
    yield made
    made.close()


def trials(folder: Path, source: str, pool: ZygotePool) -> list[Result]:
    """Two trials of this module, which have succeeded."""
    (folder / "work.py").write_text(f"import os\nHERE = os.path.dirname(__file__)\n{source}")
    results = [run(order(folder, "work:train", import_path=(str(folder),)), pool) for _ in range(2)]
    assert [result.ended.exit_code for result in results] == [0, 0], results[0].log
    return results


READING = """
import zipfile
with zipfile.ZipFile(HERE + "/data.zip", "w") as archive:
    archive.writestr("numbers", b"0123456789" * 10_000)
DATA = open(HERE + "/data.bin", "rb")
DATA.seek(20_000)
RAW, PLACE = os.open(HERE + "/data.bin", os.O_RDONLY | os.O_NOFOLLOW), os.open(HERE, os.O_PATH)
SAME, ARCHIVE, GONE = os.dup(RAW), zipfile.ZipFile(HERE + "/data.zip"), open(HERE + "/gone")
os.remove(HERE + "/gone")
def train(cfg, run):
    raw, same = os.read(RAW, 3), os.read(SAME, 3)
    found = [DATA.read(3), DATA.tell(), raw, same, ARCHIVE.read("numbers")[-3:], GONE.read()]
    print(found, os.get_inheritable(RAW), os.stat("data.bin", dir_fd=PLACE).st_size, flush=True)
"""


@pytest.mark.fault(
    "trial",
    "files that a module opens when it is imported, to read them",
    "a node alone, and workers that share a zygote: a file, a copy of its descriptor, an archive, a deleted file",
    "each trial reads them from where the import stopped",
)
def test_a_file_that_was_opened_to_be_read_is_each_trials_own(tmp_path: Path, pool: ZygotePool) -> None:
    (tmp_path / "data.bin").write_bytes(b"0123456789" * 10_000)
    (tmp_path / "gone").write_text("still there")
    results = trials(tmp_path, READING, pool)
    assert [result.started.method for result in results] == ["fork", "fork"]
    read = "[b'012', 20003, b'012', b'345', b'789', 'still there'] False 100000\n"
    assert [result.log for result in results] == [read, read]


SETTING = """
import gc, resource, signal
os.umask(0o27)
os.chdir("/")
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
resource.setrlimit(resource.RLIMIT_NOFILE, (133, 444))
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, print)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
SEEN = [gc.isenabled(), gc.get_threshold()]
gc.disable()
gc.set_threshold(77)
os.nice(1)
def train(cfg, run):
    print(SEEN, [os.umask(0), os.getcwd(), os.sched_getaffinity(0), resource.getrlimit(resource.RLIMIT_NOFILE)])
    print(signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN, signal.getsignal(signal.SIGCHLD), end=" ")
    print(signal.pthread_sigmask(0, ()))
    print(gc.isenabled(), gc.get_threshold()[0], os.nice(0), end="")
"""
PLAIN = """
import os, resource
def train(cfg, run):
    print([os.umask(0), sorted(os.sched_getaffinity(0)), resource.getrlimit(resource.RLIMIT_NOFILE)], end="")
"""


@pytest.mark.fault(
    "trial",
    "settings that a module changes when it is imported",
    "umask, folder, CPU affinity, limits, priority, signal handlers and mask, garbage collection",
    "they hold in each trial, forked or fresh",
)
def test_what_a_module_sets_stays_set(tmp_path: Path, pool: ZygotePool) -> None:
    results = trials(tmp_path, SETTING, pool)
    results.append(run(order(tmp_path, "work:train", import_path=(str(tmp_path),), start="spawn"), pool))
    assert [result.started.method for result in results] == ["fork", "fork", "spawn"]
    cpu, nice = {max(os.sched_getaffinity(0))}, os.nice(0) + 1
    assert results[0].log == (
        f"[True, {gc.get_threshold()}] [{0o27}, '/', {cpu}, (133, 444)]\n"
        "True <built-in function print> {<Signals.SIGCHLD: 17>}\n"
        f"False 77 {nice}"
    )
    assert results[1].log == results[2].log == results[0].log


def test_settings_that_no_module_changes_are_the_workers() -> None:
    before = current_settings()
    worker = before._replace(nice=5, umask=0o77, cpus=frozenset({7}), limits=((1, (2, 3)), (4, (5, 6))))
    assert worker.with_changes(before, before) == worker
    after = before._replace(nice=before.nice + 1, umask=0o2, limits=(*before.limits, (4, (0, 0))))
    assert worker.with_changes(before, after) == worker._replace(nice=6, umask=0o2, limits=((1, (2, 3)), (4, (0, 0))))


PRIVATE = """
import atexit, shutil, tempfile, uuid
from pathlib import Path
FOLDER = tempfile.mkdtemp(dir=HERE)
atexit.register(shutil.rmtree, FOLDER)
COPY = os.dup(1)
def train(cfg, run):
    Path(FOLDER, str(os.getpid())).touch()
    run.report({"files": len(os.listdir(FOLDER))})
    os.write(COPY, b"mine")
"""


@pytest.mark.fault(
    "trial",
    "a module makes a temporary folder when it is imported, and removes it in an exit handler",
    "a node alone, and workers that share a zygote; it also copies standard output",
    "SUCCEEDED, each with a folder and a log of its own; the message names the lines; no folder is left",
)
def test_a_module_that_makes_a_folder_makes_one_for_each_trial(tmp_path: Path, pool: ZygotePool) -> None:
    """And the output that a trial writes to a copy of standard output is in its own log."""
    first, second = trials(tmp_path, PRIVATE, pool)
    assert (first.started.method, second.started.method) == ("spawn", "spawn")
    assert first.notices == [
        "work cannot be forked: when it is imported, work.py:8 keeps a copy of standard output, work.py:7 registers "
        "an exit handler and work.py:6 makes a temporary file or folder; its trials are started as fresh processes "
        "(slower)"
    ]
    assert second.notices == []
    assert first.rows == second.rows == [(0, {"files": 1})]
    assert (first.log, second.log) == ("mine", "mine")
    pool.close()
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} <= {"sweep", "__pycache__"}


SHARED = """
import atexit, os, tempfile
FOLDER = tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.dirname(__file__)))
atexit.register(lambda: print("handler", os.path.isdir(FOLDER.name), flush=True))
"""


def test_a_librarys_finalizers_run_once_when_the_last_trial_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial runs the exit handlers, but removes nothing that the others need."""
    monkeypatch.setenv(zygote_sharing.NAME, zygote_sharing.new_name())
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "library.py").write_text(SHARED)
    (tmp_path / "work.py").write_text("import library\ndef train(cfg, run):\n    print(library.FOLDER.name)\n")
    wanted = order(tmp_path, "work:train", import_path=(str(tmp_path), str(tmp_path / "site-packages")))
    check = TrainerCheck(ZygoteSpec.of(wanted, ()), shared=True)
    check.result()
    logs = []
    for pool in (ZygotePool(), ZygotePool()):
        logs += [run(wanted, pool).log, run(wanted, pool).log]
        pool.close()
    folder, handler = logs[0].splitlines()
    assert handler == "handler True"
    assert logs == [logs[0]] * 4
    assert Path(folder).is_dir()
    check.close()
    assert not Path(folder).exists()


def test_common_libraries_keep_the_fork(tmp_path: Path) -> None:
    """Those of them that are installed here; that some 30 others do is known from measurements."""
    names = ["numpy", "torch", "wandb", "ray", "hydra", "omegaconf", "requests", "psutil", "rich", "pydantic", "fsspec"]
    names += ["networkx", "httpx", "pynvml", "pandas", "scipy", "sklearn", "matplotlib", "lightning", "transformers"]
    installed = [name for name in names if importlib.util.find_spec(name)]
    assert len(installed) >= 10
    pool = ZygotePool()
    (first, _) = trials(tmp_path, f"import {', '.join(installed)}\ndef train(cfg, run): pass\n", pool)
    pool.close()
    assert (first.started.method, first.notices) == ("fork", [])
