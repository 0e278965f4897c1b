"""A coordinator without trials, and what each tracker delivers to, as a test sees it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from orchestrator.folder.lock import Lock
from orchestrator.folder.paths import create_folder
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Ended, Outcome, Restored, Started
from orchestrator.model.sweep import State, SweepSpec, TrialSpec
from orchestrator.tracking import control
from tests.unit import manifests
from tests.wandb_server import Server


def until(condition: Callable[[], Any], seconds: float = 90.0) -> None:
    """Wait for something that another process brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class Sweep:
    """A coordinator without trials: it writes what a real one would. Its sweep has one tracker."""

    def __init__(self, root: Path, tracking: Mapping[str, Any], trials: int = 2) -> None:
        self.spec = SweepSpec("sums", "module:train", tracking=tracking)
        self.name = next(name for name, options in tracking.items() if options is not False)
        self.folder = create_folder(root / "runs", "sums")
        self.log = self.folder.tracker_log(self.name)
        self.open()
        with self.manifest.transaction():
            plan = self.manifest.plans.begin(self.spec, "sweep.yaml", [], {}, "c0de", str(root))
            self.manifest.plans.add_trials(plan, [spec_of(number) for number in range(trials)])
            self.manifest.plans.finish(plan, trials, 0, 0)
            self.keys = [due.key for due in self.manifest.trials.due(plan, -1, trials)]
        self.processes: dict[str, subprocess.Popen[bytes] | None] = {}
        self.started: list[subprocess.Popen[bytes]] = []

    def open(self) -> None:
        self.held = True
        self.lock = Lock.take(self.folder)
        self.manifest = Manifest.open(self.folder)

    def track(self) -> None:
        self.processes = control.start(self.folder, self.spec)
        assert list(self.processes) == [self.name]
        self.started.append(self.tracker)

    @property
    def tracker(self) -> subprocess.Popen[bytes]:
        process = self.processes[self.name]
        assert process
        return process

    def begin(self, trial: int = 0, attempt: int = 1, lineage: int = 1, restored: int | None = None) -> None:
        key, now = self.keys[trial], time.time()
        with self.manifest.transaction():
            self.manifest.attempts.open(manifests.opening(key, attempt, lineage=lineage, at=now))
            self.manifest.attempts.started(key, attempt, Started(now, "here", "", 1, (), (), 1, "fork"))
            if restored is not None:
                self.manifest.attempts.restored(key, attempt, Restored(restored, "", now), lineage)

    def begin_anew(self, trial: int, attempt: int) -> None:
        """The attempt reports before it restores."""
        with self.manifest.transaction():
            self.manifest.attempts.new_lineage(self.keys[trial], attempt, time.time())

    def rejoin(self, trial: int, attempt: int, lineage: int, step: int) -> None:
        """The attempt restores after all."""
        with self.manifest.transaction():
            self.manifest.attempts.restored(self.keys[trial], attempt, Restored(step, "", time.time()), lineage)

    def report(self, steps: range, trial: int = 0, attempt: int = 1, **metrics: Any) -> None:
        rows = [(step, time.time(), json.dumps(metrics or {"loss": step / 2})) for step in steps]
        with self.manifest.transaction():
            self.manifest.attempts.reported(self.keys[trial], attempt, rows)

    def end(self, state: State, trial: int = 0, attempt: int = 1, retry: bool = False) -> None:
        with self.manifest.transaction():
            outcome = Outcome(state, retry=retry)
            self.manifest.attempts.close(self.keys[trial], attempt, outcome, Ended(time.time()))

    def release(self) -> None:
        self.held = False
        self.manifest.close()
        self.lock.release()

    def finish(self) -> bool:
        """Wait for the tracker; whether it has delivered everything."""
        return not control.finish(self.processes)

    def close(self) -> bool:
        self.release()
        return self.finish()

    def sync(self) -> int:
        return control.sync(self.folder, self.name, lambda _: None)

    def discard(self) -> None:
        """End whatever a failed test has left."""
        for process in self.processes.values():
            if process and process.poll() is None:
                process.kill()
                process.wait()
        if self.held:
            self.release()


def spec_of(number: int) -> TrialSpec:
    config = {"model": {"name": "lstm", "size": 4}, "lr": number / 10, "seed": number, "key": "${oc.env:SECRET}"}
    return TrialSpec(id_of(number), config, {"model": "lstm", "opt.lr": number / 10}, number, "same")


def id_of(number: int) -> str:
    return f"{number:012x}"


@dataclass
class Shown:
    """A run as it is shown where a tracker delivers to."""

    trial: str
    attempt: int
    steps: list[int] = field(default_factory=list)  # as they arrived
    metrics: list[dict[str, float]] = field(default_factory=list)  # of each of them
    exit_code: int | None = None  # None while it goes on
    tags: list[str] = field(default_factory=list)


class Receiver(Protocol):
    """Where a tracker delivers to."""

    tracking: Mapping[str, Any]  # `sweep.tracking`

    def runs(self) -> list[Shown]:
        """All that has arrived."""

    def fail(self, kind: str) -> None:
        """Begin an outage."""

    def recover(self) -> None:
        """End it."""

    def failing(self, sweep: Sweep) -> bool:
        """Whether the tracker has met the outage."""


def one(receiver: Receiver, trial: int, attempt: int = 1) -> Shown:
    """The run of a trial that began with this attempt."""
    found = [run for run in receiver.runs() if (run.trial, run.attempt) == (id_of(trial), attempt)]
    assert len(found) == 1, f"{len(found)} runs of trial {trial}, attempt {attempt}"
    return found[0]


class WandbReceiver:
    """A recording W&B server."""

    tracking: Mapping[str, Any] = {"wandb": {"project": "shop", "tags": ["spring"], "notes": "why"}}

    def __init__(self, server: Server) -> None:
        self._server = server

    def runs(self) -> list[Shown]:
        found = []
        for run in list(self._server.runs.values()):
            assert not run.overwritten
            sweep, history = run.setting("sweep"), run.history
            metrics = [{key: value for key, value in row.items() if key[0] != "_"} for row in history]
            tags = [tag for tag in run.tags if tag != "spring"]
            found.append(Shown(sweep["trial"], sweep["attempt"], run.steps, metrics, run.exit_code, tags))
        return found

    def fail(self, kind: str) -> None:
        self._server.outage = kind.removesuffix(" for long")  # type: ignore[assignment]
        self._long = kind.endswith(" for long")

    def recover(self) -> None:
        self._server.outage = None

    def failing(self, sweep: Sweep) -> bool:
        # For long: until the run has to be opened once more.
        return "Timed out" in sweep.log.read_text() if self._long else self._server.refused > 0


class JsonLinesReceiver:
    """A file in a folder that goes away."""

    tracking: Mapping[str, Any] = {"wandb": False, "jsonl": "shared/runs.jsonl"}

    def __init__(self, root: Path) -> None:
        self._file = root / "shared" / "runs.jsonl"
        self._file.parent.mkdir()
        self._away = root / "away"
        self._kind = ""

    def lines(self) -> list[dict[str, Any]]:
        """The lines of the file, without one that is being written."""
        text = self._file.read_text() if self._file.is_file() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def runs(self) -> list[Shown]:
        found: dict[str, Shown] = {}
        for line in self.lines():
            if "config" in line:
                assert line["run"] not in found
                found[line["run"]] = Shown(line["trial"], line["sweep"]["attempt"])
            run = found[line["run"]]
            run.exit_code, run.tags = line.get("exit_code"), line.get("tags", [])
            if "step" in line:
                run.steps.append(line["step"])
                run.metrics.append(line["metrics"])
        return list(found.values())

    def fail(self, kind: str) -> None:
        self._kind = kind
        if kind == "the folder is missing":
            self._file.parent.rename(self._away)
        else:
            self._file.replace(self._away) if self._file.exists() else None
            self._file.mkdir()

    def recover(self) -> None:
        if self._kind == "the folder is missing":
            self._away.rename(self._file.parent)
        else:
            self._file.rmdir()
            self._away.rename(self._file) if self._away.exists() else None

    def failing(self, sweep: Sweep) -> bool:
        said = {"the folder is missing": "No such file", "a folder is in its place": "Is a directory"}[self._kind]
        return said in sweep.log.read_text()
