"""The tracker, end to end: the real W&B SDK in online mode against a recording server, and offline."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator import naming
from orchestrator.errors import OrchestratorError, TrackingError
from orchestrator.folder.lock import Lock
from orchestrator.folder.paths import create_folder
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Ended, Outcome, Restored, Started
from orchestrator.model.sweep import State, SweepSpec, TrialSpec
from orchestrator.tracking import control
from tests.unit import manifests
from tests.wandb_server import Outage, Server

KEY = "0123456789abcdef" * 2 + "01234567"
SETTINGS = {
    "WANDB_API_KEY": KEY,
    "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1",
    "WANDB_X_FILE_STREAM_RETRY_WAIT_MAX_SECONDS": "1",
    "WANDB_INIT_TIMEOUT": "2",
    "WANDB_FINISH_TIMEOUT": "3",
}


def until(condition: Callable[[], Any], seconds: float = 90.0) -> None:
    """Wait for something that another process brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    server = Server()
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("HOME", str(tmp_path))  # nobody's real login
    monkeypatch.delenv("NETRC", raising=False)
    yield server
    assert not server.unknown
    server.close()


class Sweep:
    """A coordinator without trials: it writes what a real one would."""

    def __init__(self, root: Path, trials: int = 1, **wandb: Any) -> None:
        self.spec = SweepSpec("sums", "module:train", tracking={"wandb": {"project": "shop", **wandb}})
        self.folder = create_folder(root, "sums")
        self.open()
        with self.manifest.transaction():
            plan = self.manifest.plans.begin(self.spec, "sweep.yaml", [], {}, "c0de", "/")
            specs = [_spec(number) for number in range(trials)]
            self.manifest.plans.add_trials(plan, specs)
            self.manifest.plans.finish(plan, trials, 0, 0)
            self.keys = [due.key for due in self.manifest.trials.due(plan, -1, trials)]
        self.tracker: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        self.held = True
        self.lock = Lock.take(self.folder)
        self.manifest = Manifest.open(self.folder)

    def track(self) -> None:
        self.tracker = control.start(self.folder, self.spec)

    def begin(self, trial: int = 0, attempt: int = 1, lineage: int = 1, restored: int | None = None) -> None:
        key, now = self.keys[trial], time.time()
        with self.manifest.transaction():
            self.manifest.attempts.open(manifests.opening(key, attempt, lineage=lineage, at=now))
            self.manifest.attempts.started(key, attempt, Started(now, "here", "", 1, (), (), 1, "fork"))
            if restored is not None:
                self.manifest.attempts.restored(key, attempt, Restored(restored, "", now))

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

    def close(self) -> bool:
        self.release()
        return control.finish(self.tracker)


def _spec(number: int) -> TrialSpec:
    config = {"model": {"name": "lstm", "size": 4}, "lr": number / 10, "seed": number, "key": "${oc.env:SECRET}"}
    return TrialSpec(f"{number:012x}", config, {"model": "lstm", "opt.lr": number / 10}, number, "same")


def id_of(number: int) -> str:
    return f"{number:012x}"


@pytest.fixture
def sweep(server: Server, tmp_path: Path) -> Iterator[Sweep]:
    sweep = Sweep(tmp_path / "runs", 2, tags=["spring"], notes="why")
    yield sweep
    if sweep.tracker and sweep.tracker.poll() is None:
        sweep.tracker.kill()
        sweep.tracker.wait()
    if sweep.held:
        sweep.release()


def test_steps_arrive_while_the_sweep_runs_and_runs_say_what_they_are(server: Server, sweep: Sweep) -> None:
    sweep.track()
    sweep.begin(0)
    sweep.report(range(3))
    sweep.report(range(2, 3), acc="NaN", top="-Infinity")  # one step in two rows, the second in a later batch
    sweep.report(range(3, 10))
    until(lambda: server.runs and server.one(trial=id_of(0)).steps == list(range(9)))  # step 9 may still grow
    run = server.one(trial=id_of(0))
    assert run.state == "running"
    assert run.history[2]["loss"] == 1.0
    assert math.isnan(run.history[2]["acc"])
    assert run.history[2]["top"] == -math.inf
    sweep.begin(1)
    sweep.report(range(2), trial=1)
    sweep.end(State.SUCCEEDED)
    sweep.end(State.FAILED, trial=1)
    until(lambda: run.state == "finished")
    assert control.address(sweep.folder) == f"{server.url}/someone/shop/groups/sums"
    assert sweep.close()
    assert run.steps == list(range(10))
    assert (run.group, run.job_type, run.project, run.notes) == ("sums", "trial", "shop", "why")
    assert (run.tags, run.display_name) == (["spring"], naming.label(_spec(0).overrides))
    assert run.setting("model") == {"name": "lstm", "size": 4}
    assert run.setting("key") == "${oc.env:SECRET}"
    assert run.setting("sweep")["axes"] == {"model": "lstm", "opt/lr": 0.0}
    assert {found.setting("sweep")["config_id"] for found in server.runs.values()} == {"same"}
    assert (server.one(trial=id_of(1)).state, server.one(trial=id_of(1)).steps) == ("failed", [0, 1])
    assert control.undelivered(sweep.folder) == 0
    assert not any(run.overwritten for run in server.runs.values())
    assert not any(KEY.encode() in path.read_bytes() for path in sweep.folder.path.rglob("*") if path.is_file())
    assert not (sweep.folder.path / "manifest.db-wal").exists()


@pytest.mark.parametrize("kinds", [("503", "429", "drop"), ("429", "drop", "503"), ("drop", "503", "429")])
def test_every_step_arrives_once_whenever_the_server_is_out(
    server: Server, sweep: Sweep, kinds: tuple[Outage, Outage, Outage]
) -> None:
    server.outage = kinds[0]
    sweep.track()
    sweep.begin()
    sweep.report(range(10))
    until(lambda: server.refused)
    server.outage = None
    until(lambda: server.runs and server.one(trial=id_of(0)).steps == list(range(9)))
    server.outage = kinds[1]
    sweep.report(range(10, 20))
    until(lambda: server.refused)
    server.outage = None
    until(lambda: server.one(trial=id_of(0)).steps == list(range(19)))
    server.outage = kinds[2]
    sweep.report(range(20, 30))
    sweep.end(State.SUCCEEDED)
    sweep.release()
    until(lambda: server.refused)
    if kinds[2] == "503":  # so long that the run has to be opened once more
        until(lambda: "Timed out" in control.log(sweep.folder).read_text())
    server.outage = None
    assert control.finish(sweep.tracker)
    run = server.one(trial=id_of(0))
    assert (run.steps, run.state) == (list(range(30)), "finished")


def test_a_tracker_that_is_killed_is_continued_by_the_next(server: Server, sweep: Sweep) -> None:
    sweep.track()
    sweep.begin()
    sweep.report(range(10))
    until(lambda: server.runs and len(server.one(trial=id_of(0)).steps) >= 5)
    assert sweep.tracker
    sweep.tracker.kill()
    sweep.tracker.wait()
    sweep.report(range(10, 20))
    sweep.track()
    until(lambda: server.one(trial=id_of(0)).steps == list(range(19)))
    sweep.end(State.SUCCEEDED)
    assert sweep.close()
    assert (server.one(trial=id_of(0)).steps, server.one(trial=id_of(0)).state) == (list(range(20)), "finished")


def test_a_tracker_gives_way_to_that_of_the_next_coordinator(server: Server, sweep: Sweep) -> None:
    sweep.track()
    sweep.begin()
    sweep.report(range(5))
    until(lambda: server.runs and server.one(trial=id_of(0)).steps == list(range(4)))
    server.outage = "drop"  # it cannot end by itself
    sweep.report(range(5, 10))
    sweep.release()
    sweep.open()
    first, sweep.tracker = sweep.tracker, None
    sweep.track()
    assert first
    assert first.wait(20) == 1
    server.outage = None
    sweep.end(State.SUCCEEDED)
    assert sweep.close()
    assert (server.one(trial=id_of(0)).steps, server.one(trial=id_of(0)).state) == (list(range(10)), "finished")


def test_when_wandbs_own_process_dies_the_runs_go_on(server: Server, sweep: Sweep) -> None:
    sweep.track()
    sweep.begin()
    sweep.report(range(10))
    until(lambda: server.runs and len(server.one(trial=id_of(0)).steps) >= 5)
    assert sweep.tracker
    for child in psutil.Process(sweep.tracker.pid).children():
        child.kill()
    sweep.report(range(10, 20))
    until(lambda: server.one(trial=id_of(0)).steps == list(range(19)))
    sweep.end(State.SUCCEEDED)
    assert sweep.close()
    assert (server.one(trial=id_of(0)).steps, server.one(trial=id_of(0)).state) == (list(range(20)), "finished")


def test_a_run_that_is_refused_keeps_no_other_waiting(
    server: Server, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")  # W&B tries again for as long
    server.deleted.add(id_of(0))
    sweep.track()
    for trial in (0, 1):
        sweep.begin(trial)
        sweep.report(range(5), trial)
        sweep.end(State.SUCCEEDED, trial)
    assert not sweep.close()
    assert (server.one(trial=id_of(1)).steps, server.one(trial=id_of(1)).state) == (list(range(5)), "finished")
    assert control.undelivered(sweep.folder) == 1
    assert "previously created and deleted" in control.log(sweep.folder).read_text()


def test_a_retry_is_a_new_run_from_scratch_and_the_same_run_from_a_checkpoint(server: Server, sweep: Sweep) -> None:
    sweep.track()
    for trial in (0, 1):
        sweep.begin(trial)
        sweep.report(range(6), trial)
        sweep.end(State.LOST, trial, retry=True)
    until(lambda: len(server.runs) == 2 and all(run.steps == list(range(5)) for run in server.runs.values()))
    assert {run.state for run in server.runs.values()} == {"running"}  # it may go on
    sweep.begin(0, attempt=2, lineage=2)
    sweep.report(range(4), 0, attempt=2)
    sweep.begin(1, attempt=2, lineage=1, restored=3)
    sweep.report(range(4, 9), 1, attempt=2, again=1)
    for trial in (0, 1):
        sweep.end(State.SUCCEEDED, trial, attempt=2)
    assert sweep.close()
    old, new = server.one(trial=id_of(0), attempt=1), server.one(trial=id_of(0), attempt=2)
    assert (old.state, old.tags, old.steps) == ("failed", ["spring", "superseded"], list(range(6)))
    assert (new.state, new.tags, new.steps) == ("finished", ["spring"], list(range(4)))
    resumed = server.one(trial=id_of(1))
    assert (resumed.state, resumed.steps) == ("finished", list(range(9)))
    # Step 4 was shown before the attempt was lost; step 5 was not, and is the second attempt's alone.
    assert ["again" in row for row in resumed.history] == [False] * 5 + [True] * 4
    assert "loss" not in resumed.history[5]


def test_a_coordinator_that_died_is_followed_again_when_it_returns(server: Server, sweep: Sweep) -> None:
    sweep.track()
    sweep.begin()
    sweep.report(range(5))
    until(lambda: server.runs and server.one(trial=id_of(0)).steps == list(range(4)))
    assert sweep.close()  # with an attempt that nobody has closed
    run = server.one(trial=id_of(0))
    assert (run.steps, run.exit_code) == (list(range(5)), 255)
    sweep.open()
    sweep.end(State.LOST, retry=True)
    sweep.track()
    sweep.begin(attempt=2, restored=2)
    sweep.report(range(3, 8), attempt=2)
    sweep.end(State.FAILED, attempt=2)
    until(lambda: run.exit_code == 1)
    sweep.begin(attempt=3, lineage=3)  # resubmitted: what was finished turns out to be superseded
    sweep.end(State.CANCELLED, attempt=3)
    assert sweep.close()
    assert (run.steps, run.exit_code, run.tags) == (list(range(8)), 1, ["spring", "superseded"])
    assert server.one(trial=id_of(0), attempt=3).exit_code == 255
    assert not any(run.overwritten for run in server.runs.values())


def test_offline_files_are_written_whole_and_sync_sends_what_they_hold(
    server: Server, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    sweep.track()
    sweep.begin(0)
    sweep.report(range(20))
    home = sweep.folder.path / "wandb"
    sweep.begin(1)
    sweep.report(range(5), trial=1)
    sweep.end(State.SUCCEEDED, trial=1)
    until(lambda: home.is_dir() and list(home.glob("offline-run-*")))
    assert len(list(home.glob("offline-run-*/*.wandb"))) == 1  # the other trial is not final
    sweep.end(State.FAILED, trial=0)
    assert sweep.close()
    assert not server.runs
    assert (control.undelivered(sweep.folder), control.address(sweep.folder)) == (2, None)
    _wandb_sync(home)
    assert server.one(trial=id_of(0)).steps == list(range(20))
    assert server.one(trial=id_of(1)).steps == list(range(5))
    assert {run.state for run in server.runs.values()} == {"finished", "failed"}
    server.runs.clear()
    assert control.sync(sweep.folder, lambda _: None) == 2
    assert control.sync(sweep.folder, lambda _: None) == 0
    assert (server.one(trial=id_of(0)).steps, server.one(trial=id_of(0)).state) == (list(range(20)), "failed")
    assert control.undelivered(sweep.folder) == 0


def _wandb_sync(home: Path) -> None:
    """W&B's own way to send offline files."""
    environment = os.environ | {"WANDB_MODE": "online"}
    found = [str(path) for path in home.glob("offline-run-*")]
    command = [sys.executable, "-m", "wandb", "sync", "--yes", *found]
    subprocess.run(command, cwd=home.parent, env=environment, check=True, capture_output=True, timeout=60)


def test_what_cannot_be_sent_is_said(server: Server, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep.begin()
    sweep.end(State.SUCCEEDED)
    sweep.release()
    server.outage = "503"
    with pytest.raises(TrackingError, match="cannot be reached"):
        control.sync(sweep.folder, lambda _: None)
    server.outage = "401"
    with pytest.raises(TrackingError, match="refuses the login") as caught:
        control.sync(sweep.folder, lambda _: None)
    assert KEY not in str(caught.value)
    server.outage = None
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(TrackingError, match="not logged in"):
        control.sync(sweep.folder, lambda _: None)


@pytest.mark.parametrize("wish", [False, None])
def test_off(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish: bool | None) -> None:
    if wish is None:
        monkeypatch.setenv("WANDB_MODE", "disabled")
    sweep = Sweep(tmp_path / "runs")
    spec = sweep.spec if wish is None else SweepSpec("sums", "m:f", tracking={"wandb": False})
    assert control.start(sweep.folder, spec) is None
    assert control.finish(None)
    if wish is False:
        with sweep.manifest.transaction():
            sweep.manifest.plans.begin(spec, "sweep.yaml", [], {}, "c0de", "/")
        assert control.undelivered(sweep.folder) == 0
        with pytest.raises(OrchestratorError, match="turned off"):
            control.sync(sweep.folder, lambda _: None)
    sweep.release()
