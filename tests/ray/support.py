"""A user's project, and the command line run in it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.wandb_server import Server

TRACKED = "sweep.tracking.wandb={project: shop}"
PATIENCE = 120.0  # seconds until a condition that does not come is a failure

TRAINER = '''
import os, signal, subprocess, sys, time

def train(cfg, run):
    print("hello from", run.id, "attempt", run.attempt, flush=True)
    start = run.restore() or 0
    for step in range(start, cfg.steps):
        if (cfg.do == "hold" or (cfg.do == "late" and cfg.x >= 40)) and step == 2:
            hold(cfg, run)
        if cfg.do == "grace" and step == 2:
            def save(*_):
                run.save(cfg.steps, step=step)
                sys.exit(1)
            signal.signal(signal.SIGTERM, save)
            hold(cfg, run)
        if cfg.do == "fail" and step == 2:
            raise ValueError(f"bad value {cfg.x}")
        if cfg.do == "odd" and cfg.x % 2:
            raise ValueError("x is odd")
        if cfg.do == "orphan" and step == 2:
            code = ORPHAN.format(path=str(run.dir / "orphan"))
            subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
            hold(cfg, run)
        if cfg.do == "big" and step == 2:
            (run.dir / "big").write_bytes(bytes(cfg.size))
        if cfg.do == "exit":
            os._exit(3)
        if cfg.do == "segv":
            os.kill(os.getpid(), signal.SIGSEGV)
        if cfg.do == "once" and run.attempt == 1 and step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        run.report({"loss": (cfg.x + 1) / (step + 1)}, step=step)
        if cfg.save:
            run.save(step + 1, step=step)
    (run.dir / "result.txt").write_text(str(cfg.x))

ORPHAN = (
    "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "open({path!r}, 'w').write(str(os.getpid())); time.sleep(600)"
)


def hold(cfg, run):
    """Say that this trial is here, and wait until the test lets it go."""
    open(os.path.join(cfg.meet, f"{run.id}-{run.attempt}"), "w").write(str(os.getpid()))
    while not os.path.exists(os.path.join(cfg.meet, "go")):
        time.sleep(0.01)
'''
SWEEP = """
x: 0
do: nothing
steps: 4
save: false
meet: ""
seed: 1
sweep:
  name: work
  trainer: work:train
  objective: {metric: loss, mode: min}
  axes:
    x: [0, 1, 2, 3]
  resources: {gpus: 1, cpus: 1}
  grace: 5s
  ignore: [meet]
  tracking: {wandb: false}
"""


@dataclass
class Project:
    """A folder with a trainer and a sweep file, and the command line run in it."""

    root: Path
    address: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = (sys.executable, "-m", "orchestrator.cli")
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def meet(self) -> Path:
        return self.root / "meet"

    def start(self, *words: object, **options: Any) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONUNBUFFERED": "1", **self.env}
        if self.address:
            env["RAY_ADDRESS"] = self.address
        process = subprocess.Popen(
            [*self.command, *map(str, words)],
            cwd=self.root,
            env=env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **options,
        )
        self.started.append(process)
        return process

    def run(self, *words: object, code: int | None = 0) -> str:
        """The command's output; it must end with `code`."""
        process = self.start(*words)
        out, err = process.communicate(timeout=PATIENCE)
        assert code is None or process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return out + err

    def sweep(self, *words: object, code: int | None = 0) -> str:
        return self.run("sweep", "conf/sweep.yaml", f"meet={self.meet}", *words, code=code)

    def start_sweep(self, *words: object) -> subprocess.Popen[str]:
        return self.start("sweep", "conf/sweep.yaml", f"meet={self.meet}", *words)

    def json(self, *words: object) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run(*words).splitlines()]

    def trials(self, *words: object) -> list[dict[str, Any]]:
        return self.json("trials", "--json", *words)

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = self.json("status", "--json")[0]["counts"]
        return {state: count for state, count in counts.items() if count}

    def query(self, text: str, sweep: str = "work") -> list[tuple[Any, ...]]:
        path = self.runs / sweep / "manifest.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
            return db.execute(text).fetchall()

    def waiting(self) -> list[Path]:
        """Trials that hold, and have said so."""
        return sorted(path for path in self.meet.iterdir() if path.name != "go" and path.read_text())

    def until_waiting(self, count: int, process: subprocess.Popen[str]) -> list[int]:
        """Wait until `count` trials hold; their pids."""
        until(lambda: len(self.waiting()) >= count, process)
        return [int(path.read_text()) for path in self.waiting()]

    def until_orphans(self, count: int, process: subprocess.Popen[str]) -> list[int]:
        """Wait until `count` trials have started a child that hides; the pids of these children."""
        until(lambda: len(self._orphans()) >= count, process)
        return self._orphans()

    def _orphans(self) -> list[int]:
        written = (path.read_text() for path in (self.runs / "work" / "trials").glob("*/files/orphan"))
        return [int(pid) for pid in written if pid]

    def processes(self) -> list[int]:
        """The processes of others whose working directory is in this project."""
        found = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                inside = os.readlink(f"/proc/{pid}/cwd").startswith(str(self.root))
            except OSError:
                continue
            if inside and pid != os.getpid() and alive(pid):
                found.append(pid)
        return found

    def go(self) -> None:
        (self.meet / "go").touch()

    def end(self) -> None:
        """Let every trial go, and leave no command running."""
        self.go()
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@contextmanager
def new_project(
    root: Path, address: str | None = None, command: tuple[str, ...] = Project.command
) -> Iterator[Project]:
    """A project with the trainer and the sweep file above; without an address, Ray starts embedded."""
    (root / "work.py").write_text(TRAINER)
    (root / "conf").mkdir()
    (root / "conf" / "sweep.yaml").write_text(SWEEP)
    (root / "meet").mkdir()
    project = Project(root, address, command=command)
    yield project
    project.end()


@contextmanager
def recording_server(project: Project) -> Iterator[Server]:
    """A W&B server to which the project's sweeps report online."""
    server = Server()
    project.env.update(server.environment, HOME=str(project.root))
    yield server
    server.close()


def until(condition: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    """Poll a condition; its first true value. Fails at once if the process has ended, or after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        if process is not None and process.poll() is not None:
            out, err = process.communicate()
            pytest.fail(f"the process ended with {process.returncode}\n{out}\n{err}")
        time.sleep(0.02)
    pytest.fail("the condition did not come")


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
