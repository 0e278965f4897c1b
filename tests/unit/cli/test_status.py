"""`status` and `ls`, for sweeps that the real writer made."""

from __future__ import annotations

import os

import pytest

from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.writer import Manifest
from tests.unit import manifests
from tests.unit.cli.support import Command, held
from tests.unit.manifests import trial_id


def test_status_shows_counts_best_failures_and_running_trials(orchestrate: Command, sweep: Manifest) -> None:
    with held(sweep):
        output = orchestrate("status")
    assert output.code == 0
    assert output.lines[0].startswith("s  3/6  2 succeeded · 1 running")
    assert "best: valid/acc 0.79" in output.out
    assert "train.py:7: ValueError: bad" in output.out
    assert f"→ {trial_id(3)[:8]}" in output.out
    assert "gpu 1" in output.out
    assert output.lines[-1].startswith("  running (pid ")


def test_nothing_runs_without_a_coordinator(orchestrate: Command, sweep: Manifest) -> None:
    """A trial that was running when the coordinator died counts as waiting, because it runs again."""
    output = orchestrate("status")
    assert output.lines[0].startswith("s  3/6  2 succeeded · 2 waiting")
    assert "→" not in output.out
    assert "its coordinator died" in output.lines[-1]
    assert output.lines[-1].endswith(
        "continues it: cd /work && orchestrate sweep conf/sweep.yaml x=1,2 --runs " + str(sweep.folder.path.parent)
    )
    (found,) = orchestrate("status", "s", "--json").json()
    assert (found["counts"]["RUNNING"], found["counts"]["PENDING"], found["running"]) == (0, 2, [])
    assert found["coordinator"] is None
    assert found["eta"] is None


def test_status_as_json(orchestrate: Command, sweep: Manifest) -> None:
    with held(sweep):
        (found,) = orchestrate("status", "s", "--json").json()
    assert found["total"] == 6
    assert found["counts"] == {
        "PENDING": 1,
        "LAUNCHING": 0,
        "RUNNING": 1,
        "SUCCEEDED": 2,
        "FAILED": 1,
        "STOPPED": 0,
        "CANCELLED": 1,
        "LOST": 0,
    }
    assert found["best"]["trial_id"] == trial_id(1)
    assert found["best"]["objective"] == pytest.approx(0.79)
    assert [row["trial_id"] for row in found["running"]] == [trial_id(3)]
    assert found["coordinator"]["pid"] == os.getpid()
    assert found["eta"] == 18.0, "9 s a trial, however far the clock of the node is ahead of ours"


def test_watching_a_sweep_that_does_not_run_ends_at_once(orchestrate: Command) -> None:
    output = orchestrate("status", "--watch")
    assert output.code == 0
    assert len(output.lines) == 1


def test_the_latest_sweep_is_the_default(orchestrate: Command, another: SweepFolder) -> None:
    assert orchestrate("status").lines[0].startswith("another  0/1")
    for name in ("s", "runs/s", "./runs/s/", str(another.path.parent / "s")):
        assert orchestrate("status", name).lines[0].startswith("s  3/6")
    assert orchestrate("status", "s", "--runs", "runs").lines[0].startswith("s  3/6")
    assert orchestrate("status", "--runs", str(another.path.parent)).lines[0].startswith("another")


def test_a_sweep_without_a_plan_has_no_trials(orchestrate: Command, sweep: Manifest) -> None:
    folder = manifests.create(sweep.folder.path.parent, "empty")
    Manifest.open(folder).close()
    assert orchestrate("status", "empty").code == 0
    assert orchestrate("status", "empty", "--json").json()[0]["total"] == 0
    assert orchestrate("trials", "empty").out == "no trial matches\n"


def test_ls_lists_all_sweeps(orchestrate: Command, another: SweepFolder) -> None:
    output = orchestrate("ls")
    assert [line.split()[0] for line in output.lines] == ["another", "s"]
    assert "3/6" in output.lines[1]
    assert [row["total"] for row in orchestrate("ls", "--json").json()] == [1, 6]
    assert "no sweep in" in orchestrate("ls", "--runs", "nowhere").out
    assert orchestrate("ls", "--runs", "nowhere", "--json").out == ""


def test_a_damaged_sweep_does_not_hide_the_others(orchestrate: Command, sweep: Manifest) -> None:
    broken = manifests.create(sweep.folder.path.parent, "broken")
    broken.manifest.write_bytes(b"garbage" * 1000)
    assert orchestrate("show", trial_id(0)).code == 0
    assert orchestrate("status", "broken").code == 2
    listed = orchestrate("ls")
    assert listed.code == 0
    assert "unreadable" in listed.out
    assert {row["sweep"] for row in orchestrate("ls", "--json").json()} == {"s", "broken"}
