"""Several trackers beside each other, and none."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from orchestrator.errors import OrchestratorError
from orchestrator.model.sweep import State, SweepSpec
from orchestrator.tracking import control
from orchestrator.tracking.trackers import TRACKERS, wanted
from tests.unit.tracking.support import JsonLinesReceiver, Sweep, until
from tests.wandb_server import Server

PACKAGE = Path(control.__file__).parent


@pytest.mark.parametrize(
    ("tracking", "expected"),
    [
        ({}, {"wandb": {}}),
        ({"wandb": {"project": "p"}, "jsonl": "x"}, {"wandb": {"project": "p"}, "jsonl": "x"}),
        ({"wandb": False, "jsonl": "x"}, {"jsonl": "x"}),
        ({"wandb": False}, {}),
        ({"wandb": True}, {"wandb": {}}),
    ],
)
def test_what_a_sweep_asks_for(tracking: dict[str, Any], expected: dict[str, Any]) -> None:
    assert wanted(SweepSpec("s", "m:f", tracking=tracking)) == expected


def test_generic_code_names_no_tracker() -> None:
    own = {f"{name}{ending}.py" for name in TRACKERS for ending in ("", "_mode")}
    generic = [path for path in PACKAGE.glob("*.py") if path.name not in own | {"trackers.py"}]
    assert len(generic) > 5
    named = ("wandb", "w&b", "jsonl", "json lines")
    assert [path.name for path in generic if any(name in path.read_text().lower() for name in named)] == []


def test_off(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, {"wandb": False, "jsonl": "x"})
    with sweep.manifest.transaction():
        sweep.manifest.plans.begin(SweepSpec("s", "m:f", tracking={"wandb": False}), "f", [], {}, "c0de", "/")
    sweep.release()
    assert control.start(sweep.folder, SweepSpec("s", "m:f", tracking={"wandb": False})) == {}
    assert not sweep.folder.tracking.exists()
    with pytest.raises(OrchestratorError, match="turned off"):
        control.synced(sweep.folder)


def test_a_tracker_that_cannot_be_started_is_named_at_the_end(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, {"wandb": False, "jsonl": "x"})
    sweep.folder.tracking.write_text("no folder can be made here")
    processes = control.start(sweep.folder, sweep.spec)
    sweep.release()
    assert control.finish(processes) == ["JSON Lines"]
    with pytest.raises(OrchestratorError, match="cannot write"):
        sweep.sync()


def test_all_trackers_are_waited_for_together(tmp_path: Path) -> None:
    slow = {name: subprocess.Popen(["sleep", "600"]) for name in TRACKERS}
    assert control.finish({**slow}, wait=0.1) == ["W&B", "JSON Lines"]
    assert all(process.poll() is not None for process in slow.values())
    assert control.finish({"wandb": subprocess.Popen(["true"]), "jsonl": subprocess.Popen(["false"])}) == ["JSON Lines"]


def test_a_tracker_that_is_given_up_leaves_no_temporary_files(tmp_path: Path, temporary: Path) -> None:
    sweep = Sweep(tmp_path, {"wandb": False, "jsonl": "missing/runs.jsonl"})
    sweep.track()
    sweep.begin()
    until(lambda: "cannot write" in sweep.log.read_text())
    assert list(temporary.iterdir()), "it has a folder of its own"
    sweep.release()
    assert control.finish(sweep.processes, wait=0.0) == ["JSON Lines"]
    assert sweep.tracker.returncode == 1, "it was not killed"
    assert list(temporary.iterdir()) == []


def test_one_that_fails_keeps_no_other_from_being_synced(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = JsonLinesReceiver(tmp_path)
    sweep = Sweep(tmp_path, {"wandb": {}, "jsonl": receiver.tracking["jsonl"]})
    sweep.begin()
    sweep.report(range(3))
    sweep.end(State.SUCCEEDED)
    sweep.release()
    monkeypatch.delenv("WANDB_API_KEY")
    assert main(["sync", str(sweep.folder.path)]) == 2
    out, err = capsys.readouterr()
    assert out == "sums: JSON Lines: 1 run sent\n"
    assert "not logged in to W&B" in err
    assert [run.steps for run in receiver.runs()] == [[0, 1, 2]]
