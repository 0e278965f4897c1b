"""A trainer that can have every fault that a trial can have, without torch. It is copied into a user's project."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

STUBBORN = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.setsid(); time.sleep(600)"


def train(cfg, run):
    """A random walk: what it reports depends on every earlier step. `cfg.do` is a fault of the trials `cfg.who`."""
    state = run.restore() or {"step": 0, "at": 0.0}
    if cfg.do == "exits_without_report" and cfg.x in cfg.who:
        sys.exit(0)
    for step in range(state["step"], cfg.steps):
        if cfg.do == "hold" and step == 2:
            hold(cfg, run)
        elif cfg.do != "nothing" and cfg.x in cfg.who and step == 2:
            globals()[cfg.do](cfg, run)
        state["at"] = 0.9 * state["at"] + random.random() + cfg.x
        run.report({"loss": state["at"]}, step=step)
        state["step"] = step + 1
        run.save(dict(state), step=step)
        time.sleep(cfg.pace)


def hold(cfg, run):
    """Write a file named after this attempt, and wait until the test creates the file "go"."""
    with open(os.path.join(cfg.meet, f"{run.id}-{run.attempt}"), "w") as file:
        file.write(str(os.getpid()))
    while not os.path.exists(os.path.join(cfg.meet, "go")):
        time.sleep(0.01)


def raises(cfg, run):
    raise ValueError("no such luck")


def leaves(cfg, run):
    sys.exit(0)


def leaves_hard(cfg, run):
    os._exit(3)


def segfaults(cfg, run):
    os.kill(os.getpid(), signal.SIGSEGV)


def is_killed(cfg, run):
    os.kill(os.getpid(), signal.SIGKILL)


def allocates_without_end(cfg, run):
    """Allocates memory until it fails, under a limit that replaces the machine's."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    blocks = []
    while True:
        blocks.append(bytes(2**26))


def exhausts_memory(cfg, run):
    """Allocates memory and writes to it, without end."""
    blocks = []
    while True:
        blocks.append(b"x" * 2**25)
        time.sleep(0.02)


def loops(cfg, run):
    while True:
        pass


def leaves_a_child(cfg, run):
    subprocess.Popen([sys.executable, "-c", STUBBORN])


def prints(cfg, run):
    line = "x" * (2**20 - 1) + "\n"
    for _ in range(cfg.size):
        sys.stdout.write(line)


def reports_much(cfg, run):
    run.report({f"metric-{number:04}": "y" * 5000 for number in range(2100)}, step=1)  # not numbers; 10 MB
    run.report({f"metric-{'z' * 5000}-{number}": 1.0 for number in range(2100)}, step=1)


def reports_nan(cfg, run):
    run.report({"loss": float("nan"), "up": float("inf"), "down": -float("inf")}, step=2)


def moves(cfg, run):
    os.chdir("/")
    sys.path.clear()


def forks(cfg, run):
    """Forks like a DataLoader: two children that it waits for, and three that it leaves behind."""
    for _ in range(3):
        if os.fork() == 0:
            time.sleep(600)
    children = [os.fork() for _ in range(2)]
    if 0 in children:
        os._exit(0)
    for child in children:
        os.waitpid(child, 0)
