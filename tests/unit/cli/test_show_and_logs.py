"""`show` and `logs`: one trial."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.cli.sync import dropped
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Ended
from orchestrator.tracking import control
from orchestrator.tracking.ledger import Ledger
from tests.unit import manifests
from tests.unit.cli.support import Command
from tests.unit.manifests import LOST, begin, plan, run, sweep_spec, trial_id, trial_spec


def test_show_prints_config_attempts_and_metrics(orchestrate: Command) -> None:
    output = orchestrate("show", trial_id(1)[:6])
    assert output.code == 0
    assert f"trial {trial_id(1)} of s: succeeded" in output.lines[0]
    assert "  optimizer:\n    lr: 0.001\n    betas: [0.9,0.99]\n" in output.out
    assert "attempt 1: succeeded on node-a gpu 1, 9s" in output.out
    assert "pid 77, fork, 1 thread, GPU-b, code code-1" in output.out
    assert "orchestrate sweep" in output.out
    assert f"orchestrate resubmit s --trial {trial_id(1)}" in output.out
    assert "15 more" in output.out
    failed = orchestrate("show", trial_id(2)).out
    assert "exception: train.py:7: ValueError: bad" in failed
    assert "    Traceback …\n    ValueError: bad" in failed


def test_a_duration_is_not_made_up_where_clocks_disagree(orchestrate: Command, sweep: Manifest) -> None:
    """A loss is told by the coordinator, whose clock is behind that of the node."""
    plan(sweep, [trial_spec(30)])
    key = begin(sweep, 30)
    with sweep.transaction():
        sweep.attempts.close(key, 1, LOST, Ended(manifests.NOW - 60))
    assert "attempt 1: lost on node-a gpu 1, 20" in orchestrate("show", trial_id(30)).out
    seconds = orchestrate("trials", "--columns", "trial_id,seconds", "--format", "csv").lines
    assert seconds == ["trial_id,seconds", f"{trial_id(30)},"]


def test_show_prints_settings_with_all_digits(orchestrate: Command, sweep: Manifest) -> None:
    config = {"lr": 0.057351183607399, "momentum": 0.0, "betas": [0.0, 1], "name": "1", "on": True, "model": "lstm"}
    plan(sweep, [trial_spec(30, config=config)])
    output = orchestrate("show", trial_id(30)).out
    assert "  lr: 0.057351183607399\n  momentum: 0.0\n  betas: [0.0,1]\n" in output
    assert '  name: "1"\n  on: true\n  model: lstm\n' in output


def test_a_note_belongs_to_its_attempt_and_a_missing_objective_to_the_trial(
    orchestrate: Command, sweep: Manifest
) -> None:
    plan(sweep, [trial_spec(30)])
    key = run(sweep, 30, los=1.0)
    with sweep.transaction():
        sweep.attempts.noticed(key, 1, "careful")
        sweep.attempts.noticed(
            key, 1, "succeeded without a report of 'loss', which is sweep.objective"
        )  # of an older version
    output = orchestrate("show", trial_id(30)).out
    assert output.index("attempt 1") < output.index("  note: careful")
    assert output.count("without a report") == 1
    assert "note: it succeeded without a report of 'loss', which is sweep.objective; it reported 'los'" in output
    with sweep.transaction():
        sweep.trials.resubmit([trial_id(30)])
    run(sweep, 30, attempt=2, loss=1.0)
    assert "without a report" not in orchestrate("show", trial_id(30)).out


def test_show_as_json(orchestrate: Command) -> None:
    (found,) = orchestrate("show", trial_id(1), "--json").json()
    assert len(found["series"]) == 30
    assert found["series"][0] == {"step": 0, "metrics": {"valid/acc": 0.5, "valid/loss": "NaN"}}
    assert found["attempts"][0]["state"] == "SUCCEEDED"
    assert found["attempts"][0]["gpu_uuids"] == ["GPU-b"]
    assert found["provenance"]["commit"] == "c0ffee"


def test_a_trial_that_has_not_run_has_no_attempts_and_no_log(orchestrate: Command) -> None:
    assert orchestrate("show", trial_id(4)).code == 0
    assert orchestrate("show", trial_id(4), "--json").json()[0]["attempts"] == []
    output = orchestrate("logs", trial_id(4))
    assert (output.code, output.out) == (2, "")
    assert "has not run yet" in output.err


def test_logs_print_the_output_of_an_attempt(orchestrate: Command, sweep: Manifest) -> None:
    assert orchestrate("logs", trial_id(0)).lines == [f"line {number}" for number in range(5)]
    assert orchestrate("logs", trial_id(0), "-n", "2").lines == ["line 3", "line 4"]
    assert orchestrate("logs", trial_id(0), "-n", "100").lines[0] == "line 0"
    assert orchestrate("logs", trial_id(0), "--follow").lines[-1] == "line 4"
    assert orchestrate("logs", trial_id(0), "--attempt", "1").lines[0] == "line 0"
    output = orchestrate("logs", trial_id(0), "--attempt", "2")
    assert output.code == 2
    assert "no attempt 2" in output.err
    assert orchestrate("logs", trial_id(1)).out == "", "it printed nothing"


def test_logs_show_what_a_terminal_would(orchestrate: Command, sweep: Manifest) -> None:
    """Also of a log that an older version has kept: a progress bar is one line, and a huge line is shortened."""
    bar = "".join(f"\r{number}%" for number in range(100_000))
    text = f"begin\n{bar}\r\n{'x' * 100_000}\nend\r\n"
    sweep.folder.attempt_log(trial_id(0), 1).write_bytes(text.encode())
    assert orchestrate("logs", trial_id(0)).out == f"begin\n99999%\n{'x' * 100_000}\nend\n"
    last = orchestrate("logs", trial_id(0), "-n", "3").lines
    assert (last[0], last[2]) == ("99999%", "end")
    assert last[1] == "x" * 5000 + " ... 90000 bytes left out ... " + "x" * 5000


def test_the_best_trial_and_the_last_one_have_names(orchestrate: Command, sweep: Manifest) -> None:
    assert orchestrate("show", "best").lines[0].startswith(f"trial {trial_id(1)} of s")
    assert orchestrate("show", "runs/s/best").lines[0].startswith(f"trial {trial_id(1)} of s")
    plan(sweep, [trial_spec(30, overrides={"x": 1})], spec=sweep_spec(objective=None))
    begin(sweep, 30)
    assert orchestrate("show", "last").lines[0].startswith(f"trial {trial_id(30)} of s")
    log = sweep.folder.attempt_log(trial_id(30), 1)
    log.parent.mkdir()
    log.write_text("a line\n")
    assert orchestrate("logs", "s/last").lines == ["a line"]
    output = orchestrate("show", "best")
    assert (output.code, output.out) == (2, "")
    assert "no objective, so no trial is its best" in output.err


def test_no_trial_is_best_or_last_before_one_has_run(orchestrate: Command, another: SweepFolder) -> None:
    assert "no trial has started yet" in orchestrate("show", "last").err, "of the latest sweep, as everywhere"
    assert "no objective" in orchestrate("show", "another/best").err


def test_a_trial_is_found_with_or_without_the_name_of_its_sweep(orchestrate: Command, another: SweepFolder) -> None:
    assert orchestrate("show", f"s/{trial_id(0)}").code == 0
    assert orchestrate("show", f"runs/s/{trial_id(0)}").code == 0
    assert orchestrate("show", trial_id(0)).lines[0].endswith("of s: succeeded")
    assert orchestrate("show", trial_id(50)).lines[0].endswith("of another: waiting")
    assert orchestrate("show", f"another/{trial_id(0)}").code == 2


def test_what_a_tracker_has_dropped_is_told(orchestrate: Command, sweep: Manifest) -> None:
    sweep.folder.tracking.mkdir()
    with contextlib.closing(Ledger(sweep.folder.tracker_ledger("wandb"), "online")) as ledger:
        ledger.keep_late("run", trial_id(0), 4)
        output = orchestrate("show", trial_id(0)).out
        assert "note: W&B lacks what was reported of 4 steps after later ones: " in output
        assert f"orchestrate sync s --force {trial_id(0)[:8]} sends" in output
        assert "W&B lacks" not in orchestrate("show", trial_id(1)).out
        (line,) = dropped(sweep.folder)
        assert line.startswith(f"W&B has dropped rows of the run of {trial_id(0)[:8]}: ")
        ledger.keep_late("another run", trial_id(1), 1)
        (line,) = dropped(sweep.folder)
        assert "W&B has dropped rows of 2 runs" in line
        assert "orchestrate sync s --force all" in line
    assert "no trial begins with 'zzz'" in orchestrate("sync", "s", "--force", "zzz").err


def test_a_trial_of_several_sweeps_is_asked_for_with_the_sweep(orchestrate: Command, sweep: Manifest) -> None:
    shutil.copytree(sweep.folder.path, sweep.folder.path.parent / "copy")
    for command in ("show", "logs"):
        output = orchestrate(command, trial_id(0))
        assert output.code == 2
        assert f"trials of several sweeps begin with {trial_id(0)!r}" in output.err
    assert orchestrate("show", f"s/{trial_id(0)}").lines[0].endswith("of s: succeeded")


def test_hints_in_a_renamed_copy_name_the_copy(orchestrate: Command, sweep: Manifest) -> None:
    """By its path where its name is not enough."""
    root = sweep.folder.path.parent
    shutil.copytree(sweep.folder.path, root / "copy")
    shutil.copytree(sweep.folder.path, root.parent / "elsewhere" / "a copy")
    for place, argument in (("runs/copy", "copy"), ("elsewhere/a copy", "'elsewhere/a copy'")):
        assert f"orchestrate resubmit {argument} --cause" in orchestrate("failures", place).out
        assert f"rerun  orchestrate resubmit {argument} --trial" in orchestrate("show", f"{place}/{trial_id(0)}").out
        assert f"orchestrate show {argument}/" in orchestrate("status", place).out
        assert orchestrate("status", place).lines[0].startswith(Path(place).name)


def test_a_trial_is_sent_anew_by_any_of_its_names(
    orchestrate: Command, another: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, Sequence[str]]] = []
    monkeypatch.setattr(control, "synced", lambda folder: ["wandb"])
    monkeypatch.setattr(control, "sync", lambda folder, name, say, force: sent.append((folder.name, force)) or 1)
    for words in (["s", "--force", "best"], ["--force", "s/best"], ["--force", trial_id(1)[:8]]):
        assert orchestrate("sync", *words).code == 0
    assert sent == [("s", [trial_id(1)])] * 3
    assert "the trials are of 2 sweeps" in orchestrate("sync", "--force", "s/best", "--force", trial_id(50)).err
