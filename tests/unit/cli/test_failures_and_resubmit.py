"""`failures`, and which trials `resubmit` runs again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.cli import resubmit
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Outcome
from orchestrator.model.sweep import State
from tests.unit.cli.support import MULTILINE_FAILURE, Command
from tests.unit.manifests import run, trial_id


def test_failures_are_grouped(orchestrate: Command, sweep: Manifest) -> None:
    run(sweep, 4, replace(MULTILINE_FAILURE, message="ValueError: worse"))
    output = orchestrate("failures")
    assert output.code == 0
    assert output.lines[0] == "s: 2 of 6 trials failed, in 1 way"
    assert f"2×  train.py:7: ValueError: bad  (exception, orchestrate show {trial_id(2)[:8]})" in output.lines[1]
    assert output.lines[2].strip() == "all with optimizer=SGD, optimizer.lr=0.1"
    assert "resubmit s --cause exception" in output.lines[3]
    (group,) = orchestrate("failures", "s", "--json").json()
    assert (group["cause"], group["kind"], group["place"], group["count"]) == (
        "exception",
        "ValueError",
        "train.py:7",
        2,
    )
    assert group["trials"] == [trial_id(2), trial_id(4)]
    assert {"key": "optimizer", "value": "SGD", "trials": 2} in group["difference"]
    assert f"train.py:7: ValueError: bad  (2×, orchestrate show {trial_id(2)[:8]})" in orchestrate("status").out
    assert orchestrate("status", "--json").json()[0]["failures"][0]["trials"] == 2


def test_a_sweep_without_failures(orchestrate: Command, another: SweepFolder) -> None:
    assert orchestrate("failures", "another").lines == ["another: 0 of 1 trial failed"]
    assert orchestrate("failures", "another", "--json").out == ""


@pytest.mark.parametrize("cause", ["exception", "train.py:7"])
def test_resubmit_takes_one_group(sweep: Manifest, cause: str) -> None:
    run(sweep, 4, Outcome(State.FAILED, "oom", "its processes held 9 GiB"))
    assert resubmit.chosen(resubmit.parser().read(["s", "--cause", cause]), sweep.folder) == [trial_id(2)]
    assert len(resubmit.chosen(resubmit.parser().read(["s"]), sweep.folder)) == 2


def test_the_best_trial_and_the_last_one_are_resubmitted_by_name(orchestrate: Command, sweep: Manifest) -> None:
    def named(*words: str) -> list[str]:
        options = resubmit.parser().read(words)
        return resubmit.chosen(options, resubmit.find(options))

    assert named("best") == named("s/best") == named("s", "--trial", "best") == [trial_id(1)]
    run(sweep, 4, MULTILINE_FAILURE)
    assert named("last") == [trial_id(4)]
    assert "is one trial" in orchestrate("resubmit", "best", "--failed").err


def test_nothing_to_resubmit_or_to_stop(orchestrate: Command) -> None:
    assert orchestrate("resubmit", "s", "--lost").out == "s: no trial to run again\n"
    assert orchestrate("stop", "s").out == "s is not running\n"


def test_trials_of_several_sweeps_are_not_resubmitted_at_once(orchestrate: Command, another: SweepFolder) -> None:
    output = orchestrate("resubmit", "--trial", f"s/{trial_id(2)}", "--trial", f"another/{trial_id(50)}")
    assert output.code == 2
    assert "2 sweeps" in output.err
