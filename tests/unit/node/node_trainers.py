"""Trainers that the tests of the node run, without torch."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

STUBBORN = (
    "import os, signal, sys, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print(os.getpid(), flush=True); os.read(int(sys.argv[1]), 1) if len(sys.argv) > 1 else time.sleep(600)"
)

KEPT = []  # until the process ends


def nothing(cfg, run):
    pass


def facts(cfg, run):
    """Writes down what a trial sees of its environment."""
    seen = {
        "cwd": os.getcwd(),
        "stdin": sys.stdin.read(),
        "hash": hash("orchestrate"),
        "random": random.random(),
        "threads": os.environ["OMP_NUM_THREADS"],
        "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
        "ray": sorted(name for name in os.environ if name.startswith("RAY_")),
        "session": os.getsid(0) == os.getpid(),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "sigint": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "sockets": [name for name in map(_target, os.listdir("/proc/self/fd")) if name.startswith("socket")],
        "path": sys.path[0],
        "seed": run.seed,
        "numpy": _numpy_draw(),
    }
    (run.dir / "facts.json").write_text(json.dumps(seen))


def _target(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def _numpy_draw():
    import numpy  # here: the trial seeds it at its import

    return float(numpy.random.rand())


def reports(cfg, run):
    import numpy as np

    run.report({"loss": 0.5, "n": 3, "flag": True})
    run.report({"loss": float("nan"), "up": float("inf"), "down": -float("inf")})
    run.report({"f32": np.float32(0.5), "array": np.array(2.0), "i": np.int64(7), "nan": np.float64("nan")}, step=10)
    run.report({"valid": {"loss": 1.0, "top": {"k": 2}}})
    run.report({"name": "adam", "vector": [1, 2], "two": np.zeros(2), "ok": 1.5})
    run.report({"name": "adam", "ok": 2.5})
    run.report({"text": "x"})
    run.report({"ok": 1.0}, step="three")
    run.report({f"metric-{i}": 1.0 for i in range(10_000)})
    run.report(None)
    run.report({"huge": 10**400, "big": 2**70})
    run.report({"last": 1.0})
    run.report({"step": 20.0}, step=np.float32(20))
    run.report({"step": 21.0}, step=np.array([21.0]))


def returns_number(cfg):
    return 0.25


def returns_a_pair(cfg):
    return {"a": 1.0}, "model"


def returns_mapping(cfg, run):
    run.report({"a": 1.0}, step=4)
    return {"b": 2.0}


def one_parameter(cfg, verbose=False):
    assert verbose is False


def run_by_name(cfg, run=None):
    assert run is not None


def raises(cfg, run):
    _deep({})


def _deep(options):
    try:
        options["lr"]
    except KeyError as error:
        raise ValueError("no learning rate") from error


def leaves(cfg, run):
    sys.exit(eval(cfg.code, {}))


def leaves_hard(cfg, run):
    os._exit(3)


def crashes(cfg, run):
    os.kill(os.getpid(), cfg.signal)


def prints(cfg, run):
    for i in range(cfg.lines):
        print(f"line {i}", file=sys.stderr if i % 2 else sys.stdout)


def shell(cfg, run):
    print("from python")
    subprocess.run(["sh", "-c", "echo from a child; echo and its error >&2"], check=True)
    print("python again")


def leaves_stubborn_child(cfg, run):
    """Leaves a child in a session of its own that ignores SIGTERM, and a block of shared memory."""
    shared = SharedMemory(create=True, size=4096)
    child = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True)
    pid = int(child.stdout.readline())
    Path(cfg.pids).write_text(f"{os.getpid()} {pid} {shared.name}\n")
    if cfg.get("wait", False):
        time.sleep(600)


def waits(cfg, run):
    """Reports once more when it is asked to end."""
    try:
        run.report({"ready": 1.0})
        print("ready")
        time.sleep(600)
    finally:
        run.report({"saved": 1.0})
        print("cleaned up")


def ignores(cfg, run):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready")
    time.sleep(600)


def hangs_in_c(cfg, run):
    """Runs C code that never releases the interpreter."""
    import itertools

    sum(itertools.repeat(1))


def removes_the_stack_handler(cfg, run):
    import faulthandler

    from orchestrator.node.inside.stack import SIGNAL

    faulthandler.unregister(SIGNAL)
    time.sleep(600)


def uses_memory(cfg, run):
    """Uses `cfg.size` bytes."""
    data = b"x" * cfg.size
    print("ready")
    time.sleep(600)
    del data


def config(cfg, run):
    from omegaconf import OmegaConf

    cfg.lr = 2  # writable
    try:
        cfg.unknown = 1
    except Exception as error:
        struct = type(error).__name__
    plain = OmegaConf.to_container(cfg, resolve=True)
    (run.dir / "config.json").write_text(json.dumps({"cfg": plain, "struct": struct}))


def keeps(cfg, run):
    """Draws random numbers, and continues with those that it saved."""
    state = run.restore() or {"drawn": [], "at": 0}
    for at in range(state["at"], cfg.steps):
        state = {"drawn": [*state["drawn"], random.random()], "at": at + 1, "key": {1: (2, b"3")}}
        run.save(state, step=at)
        if cfg.get("stop") == at:
            os._exit(9)
    (run.dir / "drawn.json").write_text(json.dumps(state["drawn"]))


def keeps_a_folder(cfg, run):
    """Like `keeps`, but saves a folder."""
    before = run.restore()
    drawn = (before / "sub" / "drawn").read_text().split() if before else []
    for at in range(len(drawn), cfg.steps):
        drawn.append(str(random.random()))
        (run.dir / "model" / "sub").mkdir(parents=True, exist_ok=True)
        (run.dir / "model" / "sub" / "drawn").write_text(" ".join(drawn))
        run.save(run.dir / "model", step=at)
        if cfg.get("stop") == at:
            os._exit(9)
    (run.dir / "drawn").write_text(" ".join(drawn))


def lists(cfg, run):
    for path in sorted(run.dir.rglob("*")):
        if path.is_file():
            print(path.relative_to(run.dir), path.read_text())


def dies_while_it_saves(cfg, run):
    """The kernel kills it when its file exceeds the limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    run.save({"data": bytes(1_000_000)}, step=1)


def fills(cfg, run):
    (run.dir / "sub").mkdir()
    (run.dir / "sub" / "small.txt").write_text("small")
    (run.dir / "large.bin").write_bytes(bytes(cfg.size))


def waits_for_threads(cfg, run):
    import atexit

    atexit.register(print, "exit handler")
    threading.Thread(target=lambda: (cfg.x, print("thread"))).start()


def asks(cfg, run):
    print("got", input())


def returns_and_lingers(cfg, run):
    """Returns; an exit handler then waits, through SIGTERM if told so."""
    import atexit

    def linger():
        if cfg.stubborn:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("lingers", flush=True)
        time.sleep(600)

    atexit.register(linger)
    if cfg.get("raises"):
        raise KeyError("lr")
    return 0.25


def saves_when_asked(cfg, run):
    """Catches the request to end, saves and returns as if it were done; or exits with 0."""
    try:
        print("ready", flush=True)
        time.sleep(600)
    except SystemExit:
        run.report({"saved": 1.0})
        if cfg.exits:
            sys.exit(0)


def forks_a_child_that_returns(cfg, run):
    """A child that returns from the trainer, or raises through it, while the trainer goes on."""
    pid = os.fork()
    if not pid:
        if cfg.raises:
            raise KeyError("of the child")
        return
    os.waitpid(pid, 0)
    print("ready", flush=True)
    if cfg.wait:
        time.sleep(600)


def exits_without_a_word(cfg, run):
    os._exit(0)


def shows_progress(cfg, run):
    """Prints a progress bar."""
    print("begin")
    for number in range(1, cfg.updates + 1):
        sys.stderr.write(f"\r{100 * number // cfg.updates}%|####|")
    sys.stderr.write("\nValueError: at the end\n")


def raises_at_length(cfg, run):
    text = "begin" + "x" * cfg.size + "end.."
    try:
        raise KeyError(text)
    except KeyError as error:
        raise ValueError(text) from error


def misnames(cfg, run):
    run.report({"x" * cfg.size: "adam"})


def loses_rows(cfg, run):
    run.report({"loss": 0.0})
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    for _ in range(cfg.rows):
        run.report({"loss": 1.0})
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    run.report({"loss": 2.0})


def consumed(function):
    def steps(cfg, run):
        yield from function(cfg, run)

    return steps


@consumed
def returns_a_generator(cfg, run):
    run.report({"never": 1.0})
    yield 1


def saves_a_name(cfg, run):
    (run.dir / "model").mkdir()
    os.chdir(run.dir)
    for state in ("model", "no such folder", "model"):
        run.save(state)


def leaves_a_full_pipe(cfg, run):
    """Leaves a file open that nobody reads, so that it cannot be flushed."""
    from orchestrator.node.inside import ending

    ending.PATIENCE = 0.1
    reader, writer = os.pipe()
    file = os.fdopen(writer, "wb", buffering=2**20)
    file.write(bytes(2**19))
    KEPT.extend([reader, file])


def leaves_a_file_too_large(cfg, run):
    """Leaves a file open that has reached the limit for files."""
    file = (run.dir / "large").open("w", buffering=2**20)
    file.write("x" * 1000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    KEPT.append(file)


def report_some(run, rows):
    for step in range(rows):
        run.report({"child": step})


def spawns_reporters(cfg, run):
    """Two processes report; what they have open must stay theirs."""
    import multiprocessing

    context = multiprocessing.get_context(cfg.method)
    run.report({"parent": 1})
    children = [context.Process(target=report_some, args=(run, 10)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]


class Odd(Exception):
    @property
    def __notes__(self):
        raise ValueError("no notes")


def raises_what_cannot_be_shown(cfg, run):
    raise Odd("b")


def exits(cfg, run):
    sys.exit(cfg.code)
