"""A user's project for faults, and what must hold of it after each: `Bed.whole`."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from orchestrator.folder.lock import holder_of
from orchestrator.folder.paths import SweepFolder
from tests.ray.support import Project, alive, until
from tests.wandb_server import Server

HERE = Path(__file__).parent
IMPATIENT = {"WANDB_INIT_TIMEOUT": "2", "WANDB_FINISH_TIMEOUT": "5"}
SWEEP = """
x: 0
do: nothing
who: [1]
size: 1
steps: 6
pace: 0.02
meet: ""
seed: 1
sweep:
  name: work
  trainer: work:train
  objective: {metric: loss, mode: min}
  axes: {x: "range(12)"}
  resources: {gpus: 1, cpus: 1}
  grace: 1s
  ignore: [meet, pace, do, who, size]
  tracking: {wandb: false}
"""
HALF_WRITTEN = ("*.part", "*.tmp", "*.draft", "*.answer", "*-wal", "*-shm", "*-journal")
# What others leave in the folder for temporary files: Ray, and Python when it is killed while it tries the folder.
THEIRS = re.compile(r"ray|[a-z0-9_]{8}$")
Series = dict[str, dict[int, float]]  # trial id -> step -> loss


@dataclass
class Bed(Project):
    """`do`, `who` and `pace` are no part of a trial's identity: an injured sweep has the trials of an uninjured one."""

    mark: str = field(default_factory=lambda: secrets.token_hex(8))  # in the environment of all that is started here

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "faulty_trainers.py", self.root / "work.py")
        for name in ("conf", "meet", "tmp"):
            (self.root / name).mkdir()
        (self.root / "conf" / "sweep.yaml").write_text(SWEEP)
        self.env |= {"FAULT_BED": self.mark, "HOME": str(self.root), "TMPDIR": str(self.root / "tmp")}

    def tracked(self, server: Server) -> None:
        """Sweeps with TRACKED go to this server."""
        self.env |= server.environment | IMPATIENT

    def left(self) -> list[int]:
        """Every process that came of a command here, however well it hides."""
        mark = f"FAULT_BED={self.mark}".encode()
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if mark in Path(f"/proc/{name}/environ").read_bytes():
                    found.append(int(name))
            except OSError:
                continue
        return [pid for pid in found if alive(pid)]

    def series(self, sweep: str = "work") -> Series:
        """What every trial reported, as the manifest gives it to a reader."""
        found: Series = defaultdict(dict)
        for trial_id, step, text in self.query("SELECT trial_id, step, metrics FROM reports ORDER BY id", sweep):
            row = json.loads(text)
            if "loss" in row:
                found[trial_id][step] = row["loss"]
        return dict(found)

    def attempts(self, sweep: str = "work") -> list[tuple[Any, ...]]:
        """(state, cause) of each trial's last attempt, in the plan's order."""
        return self.query("SELECT state, cause FROM trials WHERE current ORDER BY position", sweep)

    def succeeded(self, sweep: str = "work") -> set[tuple[str, int]]:
        """Attempts that the manifest holds to be finished."""
        if not (self.runs / sweep / "manifest.db").exists():
            return set()
        rows = self.query("SELECT name FROM sqlite_master WHERE name = 'attempt'", sweep)
        text = "SELECT trial, attempt FROM attempt WHERE state = 'SUCCEEDED'"
        return set(self.query(text, sweep)) if rows else set()

    # ------------------------------------------------------------ what must hold

    def sound(self, sweep: str = "work") -> None:
        """The manifest is whole and nothing is left: no process, lock, half-written file, or GPU held twice."""
        until(lambda: not self.left())
        assert self.query("PRAGMA integrity_check", sweep) == [("ok",)]
        assert self.query("SELECT count(*) FROM attempt WHERE state IN ('LAUNCHING', 'RUNNING')", sweep) == [(0,)]
        folder = SweepFolder(self.runs / sweep)
        assert holder_of(folder) is None
        assert [path for name in HALF_WRITTEN for path in folder.path.rglob(name)] == []
        ours = [path for path in (self.root / "tmp").iterdir() if not THEIRS.match(path.name)]
        assert [file for path in ours for file in (path, *path.rglob("*")) if not file.is_dir()] == []
        self.held_once(sweep)

    def held_once(self, *sweeps: str) -> None:
        """No two attempts held one GPU of one node at the same time."""
        held = defaultdict(list)
        for sweep in sweeps:
            rows = self.query("SELECT node_id, gpus, started, ended FROM attempt WHERE started IS NOT NULL", sweep)
            for node, gpus, started, ended in rows:
                for gpu in json.loads(gpus):
                    held[node, gpu].append((started, ended))
        for times in held.values():
            times.sort()
            assert all(one[1] <= two[0] for one, two in pairwise(times)), times

    def whole(self, expected: Series, sweep: str = "work") -> None:
        """Every trial has succeeded once, with the very numbers of an uninjured run, each step once."""
        self.sound(sweep)
        assert Counter(self.attempts(sweep)) == {("SUCCEEDED", ""): len(expected)}
        rows = self.query("SELECT count(*) FROM attempt WHERE state = 'SUCCEEDED' GROUP BY trial", sweep)
        assert rows == [(1,)] * len(expected)
        assert self.series(sweep) == expected
        doubled = "SELECT trial, attempt, step FROM report GROUP BY trial, attempt, step HAVING count(*) > 1"
        assert self.query(doubled, sweep) == []


def delivered(server: Server, expected: Series) -> None:
    """Each trial is one run in W&B with each step once; runs of abandoned attempts are marked."""
    for trial_id, steps in expected.items():
        runs = [run for run in server.runs.values() if run.setting("sweep")["trial"] == trial_id]
        (run,) = [run for run in runs if "superseded" not in run.tags]
        assert (run.state, run.steps) == ("finished", sorted(steps)), trial_id
        assert [row["loss"] for row in run.history] == list(steps.values())


def local(root: Path) -> Bed:
    """Trials run without Ray, on two slots of this machine."""
    return Bed(root, command=(sys.executable, str(HERE / "driver.py")))
