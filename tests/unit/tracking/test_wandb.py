"""What is particular to W&B, with the real SDK and a recording server."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator import naming
from orchestrator.errors import TrackingError
from orchestrator.model.sweep import State
from orchestrator.tracking import control
from tests.unit.tracking.support import Sweep, id_of, spec_of, until
from tests.wandb_server import Server


@pytest.fixture
def tracker() -> str:
    return "wandb"


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
    assert control.addresses(sweep.folder) == {"W&B": f"{server.url}/someone/shop/groups/sums"}
    assert sweep.close()
    assert run.steps == list(range(10))
    assert (run.group, run.job_type, run.project, run.notes) == ("sums", "trial", "shop", "why")
    assert (run.tags, run.display_name) == (["spring"], naming.label(spec_of(0).overrides))
    assert run.setting("model") == {"name": "lstm", "size": 4}
    assert run.setting("key") == "${oc.env:SECRET}"
    assert run.setting("sweep")["axes"] == {"model": "lstm", "opt/lr": 0.0}
    assert {found.setting("sweep")["config_id"] for found in server.runs.values()} == {"same"}
    assert (server.one(trial=id_of(1)).state, server.one(trial=id_of(1)).steps) == ("failed", [0, 1])
    assert not any(run.overwritten for run in server.runs.values())
    key = os.environ["WANDB_API_KEY"].encode()
    assert not any(key in path.read_bytes() for path in sweep.folder.path.rglob("*") if path.is_file())
    assert not (sweep.folder.path / "manifest.db-wal").exists()


def test_when_wandbs_own_process_dies_the_runs_go_on(server: Server, sweep: Sweep) -> None:
    sweep.track()
    sweep.begin()
    sweep.report(range(10))
    until(lambda: server.runs and len(server.one(trial=id_of(0)).steps) >= 5)
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
    assert "previously created and deleted" in sweep.log.read_text()


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
    assert control.addresses(sweep.folder) == {}
    _wandb_sync(home)
    assert server.one(trial=id_of(0)).steps == list(range(20))
    assert server.one(trial=id_of(1)).steps == list(range(5))
    assert {run.state for run in server.runs.values()} == {"finished", "failed"}
    server.runs.clear()
    assert (sweep.sync(), sweep.sync()) == (2, 0)
    assert (server.one(trial=id_of(0)).steps, server.one(trial=id_of(0)).state) == (list(range(20)), "failed")


def _wandb_sync(home: Path) -> None:
    """W&B's own way to send offline files."""
    environment = os.environ | {"WANDB_MODE": "online"}
    found = [str(path) for path in home.glob("offline-run-*")]
    command = [sys.executable, "-m", "wandb", "sync", "--yes", *found]
    subprocess.run(command, cwd=home.parent, env=environment, check=True, capture_output=True, timeout=60)


def test_what_cannot_be_sent_is_said(server: Server, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    sweep.begin()
    sweep.end(State.SUCCEEDED)
    sweep.release()
    server.outage = "503"
    with pytest.raises(TrackingError, match="cannot be reached"):
        sweep.sync()
    server.outage = "401"
    with pytest.raises(TrackingError, match="refuses the login") as caught:
        sweep.sync()
    assert os.environ["WANDB_API_KEY"] not in str(caught.value)
    server.outage = None
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(TrackingError, match="not logged in"):
        sweep.sync()


def test_the_environment_turns_it_off(server: Server, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in [("WANDB_MODE", "disabled"), ("WANDB_DISABLED", "true")]:
        monkeypatch.setenv(name, value)
        assert control.start(sweep.folder, sweep.spec) == {}
        monkeypatch.delenv(name)
    assert control.finish({}) == []
