"""`status`, `trials`, `show`, `logs` and `ls`, over sweeps that the real writer made."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import resubmit, trials, view
from orchestrator.cli.main import main
from orchestrator.coordinator.loop import Transition
from orchestrator.coordinator.recording import Live
from orchestrator.folder.lock import Lock
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Outcome, Started
from orchestrator.model.sweep import Objective, Resources, State
from orchestrator.results import snapshot
from tests.unit import manifests
from tests.unit.manifests import begin, end, plan, report, run, sweep_spec, trial_id, trial_spec

UGLY = Outcome(State.FAILED, "exception", "ValueError: bad", "Traceback …\nValueError: bad", "train.py:7")


@dataclass
class Said:
    """What a command printed."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def json(self) -> list[Any]:
        """One value a line."""
        return [json.loads(line, parse_constant=no_constant) for line in self.lines]


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


Say = Callable[..., Said]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], sweep: Manifest, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Run a command beside the sweep; nothing it prints for a person holds control characters."""
    monkeypatch.delenv("ORCHESTRATE_RUNS", raising=False)
    monkeypatch.chdir(sweep.folder.path.parent.parent)

    def run(*words: str) -> Said:
        capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as done:
            code = int(done.code or 0)
        found = capsys.readouterr()
        for text in (found.out, found.err) if "csv" not in words else ():  # CSV is exact
            assert all(mark.isprintable() or mark == "\n" for mark in text), repr(text)
        return Said(code, found.out, found.err)

    return run


@pytest.fixture
def sweep(manifest: Manifest) -> Manifest:
    """Six trials: two done, one failed, one running, one waiting, one interrupted; and one of an earlier plan."""
    overrides = [
        {"model": "lstm", "optimizer": "adam", "optimizer.lr": 0.01},
        {"model": "lstm", "optimizer": "adam", "optimizer.lr": 0.001},
        {"model": "lstm", "optimizer": "SGD", "optimizer.lr": 0.1},
        {"model": "gru", "optimizer": "adam", "optimizer.lr": 0.01},
        {"model": "gru", "optimizer": "SGD", "optimizer.lr": 0.1},
        {"model": "gru\x1b[31m", "optimizer": "two\nlines", "optimizer.lr": 1.0},
    ]
    trials = [
        trial_spec(
            number,
            overrides=given,
            config={
                "model": {"name": given["model"]},
                "optimizer": {"lr": given["optimizer.lr"], "betas": [0.9, 0.99]},
            },
        )
        for number, given in enumerate(overrides)
    ]
    plan(manifest, [*trials, trial_spec(9)])
    run(manifest, 9, loss=0.0)
    spec = sweep_spec(objective=Objective("valid/acc", "max", "last"))
    plan(manifest, trials, spec=spec)
    run(manifest, 0, **{"valid/acc": 0.75, "valid/loss": 0.5})
    key = begin(manifest, 1)
    for step in range(30):
        report(manifest, key, 1, step, **{"valid/acc": 0.5 + step / 100, "valid/loss": "NaN"})
    end(manifest, key)
    run(manifest, 2, UGLY, **{"valid/acc": 0.9})
    report(manifest, begin(manifest, 3), 1, 0, **{"valid/acc": 0.25})
    run(manifest, 5, Outcome(State.CANCELLED, "cancelled"))
    plan_again = manifest.current_plan()
    assert plan_again is not None
    with manifest.transaction():
        manifest.judge(plan_again.plan, spec.objective)
    log = manifest.folder.attempt_log(trial_id(0), 1)
    log.parent.mkdir(parents=True)
    log.write_bytes(b"".join(b"line %d\n" % number for number in range(5)))
    return manifest


@pytest.fixture
def another(sweep: Manifest) -> Iterator[SweepFolder]:
    """A second sweep beside it, changed later."""
    folder = manifests.create(sweep.folder.path.parent, "another")
    manifest = Manifest.open(folder)
    plan(manifest, [trial_spec(50)], spec=sweep_spec(name="another", objective=None))
    yield folder
    manifest.close()


@contextmanager
def coordinated(sweep: Manifest) -> Iterator[None]:
    """As if its coordinator lived."""
    lock = Lock.take(sweep.folder)
    try:
        yield
    finally:
        lock.release()


# ---------------------------------------------------------------- status


def test_status(say: Say, sweep: Manifest) -> None:
    with coordinated(sweep):
        said = say("status")
    assert said.code == 0
    assert said.lines[0].startswith("s  3/6  2 succeeded · 1 running")
    assert "best: valid/acc 0.79" in said.out
    assert "train.py:7: ValueError: bad" in said.out
    assert f"→ {trial_id(3)[:8]}" in said.out
    assert "node-a gpu 1" in said.out
    assert said.lines[-1].startswith("  running (pid ")


def test_nothing_runs_without_a_coordinator(say: Say) -> None:
    """What was open when it died waits: it runs again."""
    said = say("status")
    assert said.lines[0].startswith("s  3/6  2 succeeded · 2 waiting")
    assert "→" not in said.out
    assert "its coordinator died" in said.lines[-1]
    (found,) = say("status", "s", "--json").json()
    assert (found["counts"]["RUNNING"], found["counts"]["PENDING"], found["running"]) == (0, 2, [])
    assert found["coordinator"] is None
    assert found["eta"] is None


def test_status_as_json(say: Say, sweep: Manifest) -> None:
    with coordinated(sweep):
        (found,) = say("status", "s", "--json").json()
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


def test_status_of_a_sweep_that_is_held(say: Say, sweep: Manifest) -> None:
    lock = Lock.take(sweep.folder)
    assert "running (pid" in say("status").lines[-1]
    assert say("status", "--json").json()[0]["coordinator"]["pid"] > 0
    lock.release()


def test_watching_ends_with_the_coordinator(say: Say) -> None:
    said = say("status", "--watch")
    assert said.code == 0
    assert len(said.lines) == 1


def test_the_latest_sweep_is_meant_by_default(say: Say, another: SweepFolder) -> None:
    assert say("status").lines[0].startswith("another  0/1")
    for name in ("s", "runs/s", "./runs/s/", str(another.path.parent / "s")):
        assert say("status", name).lines[0].startswith("s  3/6")
    assert say("status", "s", "--runs", "runs").lines[0].startswith("s  3/6")
    assert say("status", "--runs", str(another.path.parent)).lines[0].startswith("another")


def test_no_plan_yet(say: Say, sweep: Manifest) -> None:
    folder = manifests.create(sweep.folder.path.parent, "empty")
    Manifest.open(folder).close()
    assert say("status", "empty").code == 0
    assert say("status", "empty", "--json").json()[0]["total"] == 0
    assert say("trials", "empty").out == "no trial matches\n"


# ---------------------------------------------------------------- trials


def column(said: Said, name: str) -> list[str]:
    return [row[name] for row in csv.DictReader(io.StringIO(said.out))]


def ids(numbers: Sequence[int]) -> list[str]:
    return [trial_id(number) for number in numbers]


def test_trials_as_a_table(say: Say) -> None:
    said = say("trials")
    titles, *rows = said.lines
    assert titles.split() == ["trial", "state", "model", "optimizer", "lr", "valid/acc", "valid/loss", "message"]
    assert len(rows) == 6
    assert rows[0].split() == [trial_id(0)[:8], "SUCCEEDED", "lstm", "adam", "0.01", "0.75", "0.5"]
    assert rows[1].split()[-1] == "nan"
    assert rows[2].endswith("ValueError: bad")
    assert "two\\nlines" in rows[5]


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ([], [0, 1, 2, 3, 4, 5]),
        (["--all"], [0, 1, 2, 3, 4, 5, 9]),
        (["--limit", "2"], [0, 1]),
        (["--state", "failed"], [2]),
        (["--state", "SUCCEEDED"], [0, 1]),
        (["--where", "optimizer=adam"], [0, 1, 3]),
        (["--where", "optimizer=adam", "--where", "optimizer.lr=1e-2"], [0, 3]),
        (["--where", "model.name=gru"], [3, 4]),
        (["--where", "optimizer.betas=[0.9,0.99]"], [0, 1, 2, 3, 4, 5]),
        (["--where", "optimizer=nothing"], []),
        (["--sort", "valid/acc"], [2, 1, 0, 3, 4, 5]),
        (["--sort", "-valid/acc"], [3, 0, 1, 2, 4, 5]),
        (["--sort", "valid/loss", "--state", "succeeded"], [0, 1]),
        (["--sort=valid/acc", "--limit=1", "--where", "model=lstm"], [2]),
    ],
)
def test_which_trials(say: Say, words: list[str], numbers: list[int]) -> None:
    said = say("trials", *words, "--format", "csv")
    assert said.code == 0
    assert column(said, "trial_id") == ids(numbers)
    assert [row["trial_id"] for row in say("trials", *words, "--json").json()] == ids(numbers)


def test_trials_as_json(say: Say) -> None:
    found = say("trials", "--json").json()
    assert found == say("trials", "--format", "json").json()
    assert found[1]["metrics"] == {"valid/acc": 0.79, "valid/loss": "NaN"}
    assert found[1]["overrides"] == {"model": "lstm", "optimizer": "adam", "optimizer.lr": 0.001}
    assert found[1]["config"]["optimizer"] == {"lr": 0.001, "betas": [0.9, 0.99]}
    assert (found[2]["state"], found[2]["cause"], found[2]["attempts"]) == ("FAILED", "exception", 1)
    assert (found[4]["state"], found[4]["cause"], found[4]["attempts"]) == ("PENDING", None, 0)
    assert found[5]["overrides"]["model"] == "gru\x1b[31m"


def test_one_trial_is_told_alike_alone_and_among_others(say: Say, sweep: Manifest) -> None:
    odd = {"clip": math.inf, "by step": {1: "a"}, "text": 'quo"te\n', "floor": -0.0}
    plan(sweep, [trial_spec(40, config=odd, overrides={"clip": math.inf}), trial_spec(41)])
    run(sweep, 40, Outcome(State.FAILED, "exception", 'a "message"\n'), **{"valid/acc": "-Infinity"})
    for row in say("trials", "--json").json():
        (alone,) = say("show", row["trial_id"], "--json").json()
        assert {**alone, "attempts": len(alone["attempts"])} == {
            **row, **{key: alone[key] for key in ("series", "provenance", "rerun", "files")}
        }  # fmt: skip


def test_a_terminal_gets_the_first_ones(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    every = say("trials").lines
    assert say("trials", "--limit", "0").lines == every
    monkeypatch.setattr(trials, "SCREENFUL", 4)
    assert say("trials").lines == every, "a pipe gets all"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "500")
    shown = say("trials").lines
    assert (len(shown), shown[-1]) == (1 + 4 + 1, "… and 2 more: --limit 0 shows all")
    assert len(say("trials", "--limit", "0").lines) == len(say("trials", "--limit", "6").lines) == 1 + 6
    assert len(say("trials", "--limit", "3").lines) == 1 + 3
    assert len(say("trials", "--state", "succeeded").lines) == 1 + 2
    assert len(say("trials", "--json").lines) == 6


def test_a_setting_that_not_all_trials_vary_is_told_of_all(say: Say, sweep: Manifest) -> None:
    specs = [
        trial_spec(50, overrides={"a": 1, "lr": 0.5}, config={"a": 1, "lr": 0.5}),
        trial_spec(51, overrides={"a": 2}, config={"a": 2, "lr": 0.25}),
        trial_spec(52, overrides={"a": True}, config={"a": True}),
    ]
    plan(sweep, specs)
    run(sweep, 50, lr=0.125)
    said = say("trials", "--columns", "a,lr,seconds", "--format", "csv").lines
    assert said == ["a,lr,seconds", "1,0.5,9.000", "2,0.25,", "true,,"]


def test_columns(say: Say) -> None:
    words = "trial_id,seconds,optimizer.betas,model.name,valid/acc,cause"
    said = say("trials", "--columns", words, "--format", "csv", "--state", "failed")
    assert "\r" not in said.out
    (row,) = csv.DictReader(io.StringIO(said.out))
    assert row == {
        "trial_id": trial_id(2),
        "seconds": "9.000",
        "optimizer.betas": "[0.9,0.99]",
        "model.name": "lstm",
        "valid/acc": "0.9",
        "cause": "exception",
    }
    assert say("trials", "--columns", "trial_id,lr", "--limit", "1").code == 2
    assert say("trials", "--columns", "trial_id,optimizer.lr", "--limit", "1").lines[0].split() == ["trial", "lr"]


# ---------------------------------------------------------------- one trial


def test_show(say: Say) -> None:
    said = say("show", trial_id(1)[:6])
    assert said.code == 0
    assert f"trial {trial_id(1)} of s: SUCCEEDED" in said.lines[0]
    assert "  optimizer:\n    lr: 0.001\n    betas: [0.9,0.99]\n" in said.out
    assert "attempt 1: SUCCEEDED on node-a gpu 1, 9s" in said.out
    assert "pid 77, fork, 1 thread, GPU-b, code code-1" in said.out
    assert "orchestrate sweep" in said.out
    assert f"orchestrate resubmit s --trial {trial_id(1)}" in said.out
    assert "15 more" in said.out
    failed = say("show", trial_id(2)).out
    assert "exception: train.py:7: ValueError: bad" in failed
    assert "    Traceback …\n    ValueError: bad" in failed


def test_show_tells_settings_exactly(say: Say, sweep: Manifest) -> None:
    config = {"lr": 0.057351183607399, "momentum": 0.0, "betas": [0.0, 1], "name": "1", "on": True, "model": "lstm"}
    plan(sweep, [trial_spec(30, config=config)])
    said = say("show", trial_id(30)).out
    assert "  lr: 0.057351183607399\n  momentum: 0.0\n  betas: [0.0,1]\n" in said
    assert '  name: "1"\n  on: true\n  model: lstm\n' in said


def test_show_as_json(say: Say) -> None:
    (found,) = say("show", trial_id(1), "--json").json()
    assert len(found["series"]) == 30
    assert found["series"][0] == {"step": 0, "valid/acc": 0.5, "valid/loss": "NaN"}
    assert found["attempts"][0]["state"] == "SUCCEEDED"
    assert found["attempts"][0]["gpu_uuids"] == ["GPU-b"]
    assert found["provenance"]["commit"] == "c0ffee"


def test_a_trial_that_has_not_run(say: Say) -> None:
    assert say("show", trial_id(4)).code == 0
    assert say("show", trial_id(4), "--json").json()[0]["attempts"] == []
    said = say("logs", trial_id(4))
    assert (said.code, said.out) == (2, "")
    assert "has not run yet" in said.err


def test_logs(say: Say, sweep: Manifest) -> None:
    assert say("logs", trial_id(0)).lines == [f"line {number}" for number in range(5)]
    assert say("logs", trial_id(0), "-n", "2").lines == ["line 3", "line 4"]
    assert say("logs", trial_id(0), "-n", "100").lines[0] == "line 0"
    assert say("logs", trial_id(0), "--follow").lines[-1] == "line 4"
    assert say("logs", trial_id(0), "--attempt", "1").lines[0] == "line 0"
    said = say("logs", trial_id(0), "--attempt", "2")
    assert said.code == 2
    assert "no attempt 2" in said.err
    assert say("logs", trial_id(1)).out == "", "it printed nothing"


def test_a_trial_by_its_sweep_or_wherever_it_is(say: Say, another: SweepFolder) -> None:
    assert say("show", f"s/{trial_id(0)}").code == 0
    assert say("show", f"runs/s/{trial_id(0)}").code == 0
    assert say("show", trial_id(0)).lines[0].endswith("of s: SUCCEEDED")
    assert say("show", trial_id(50)).lines[0].endswith("of another: PENDING")
    assert say("show", f"another/{trial_id(0)}").code == 2


def test_a_damaged_sweep_does_not_hide_the_others(say: Say, sweep: Manifest) -> None:
    broken = manifests.create(sweep.folder.path.parent, "broken")
    broken.manifest.write_bytes(b"garbage" * 1000)
    assert say("show", trial_id(0)).code == 0
    assert say("status", "broken").code == 2
    listed = say("ls")
    assert listed.code == 0
    assert "unreadable" in listed.out
    assert {row["sweep"] for row in say("ls", "--json").json()} == {"s", "broken"}


# ---------------------------------------------------------------- ls


def test_ls(say: Say, another: SweepFolder) -> None:
    said = say("ls")
    assert [line.split()[0] for line in said.lines] == ["another", "s"]
    assert "3/6" in said.lines[1]
    assert [row["total"] for row in say("ls", "--json").json()] == [1, 6]
    assert "no sweep in" in say("ls", "--runs", "nowhere").out
    assert say("ls", "--runs", "nowhere", "--json").out == ""


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["statsu"], "did you mean status?"),
        (["status", "zzz"], "no sweep named 'zzz'"),
        (["status", "--runs", "nowhere"], "no sweep here yet"),
        (["status", "--jsn"], "unrecognized arguments: --jsn"),
        (["status", "s", "s"], "unrecognized arguments"),
        (["trials", "zzz"], "no sweep named 'zzz'"),
        (["trials", "--state", "faild"], "did you mean failed?"),
        (["trials", "--where", "optimzer=adam"], "did you mean optimizer?"),
        (["trials", "--where", "optimizer"], "is not KEY=VALUE"),
        (["trials", "--sort", "valid/ac"], "did you mean valid/acc?"),
        (["trials", "--sort"], "expected one argument"),
        (["trials", "--columns", "trial_id,valid/los"], "did you mean valid/loss?"),
        (["trials", "--limit", "-1"], "no number above 0"),
        (["trials", "--format", "xml"], "invalid choice"),
        (["show", "zzzz"], "no trial begins with 'zzzz'"),
        (["show", ""], "several trials begin with ''"),
        (["show"], "the following arguments are required: TRIAL"),
        (["sweep"], "the following arguments are required: file\n"),
        (["show", "zzz/abc"], "no sweep named 'zzz'"),
        (["logs", "zzzz"], "no trial begins with 'zzzz'"),
        (["logs", "zzzz", "-n", "x"], "no number above 0"),
        (["stop", "zzz"], "no sweep named 'zzz'"),
        (["resubmit", "--trial", "zzzz"], "no trial begins with 'zzzz'"),
        (["resubmit", "--cause", "oom"], "no trial failed by 'oom'"),
        (["resubmit", "--failed", "--lost"], "not allowed with"),
        (["resubmit", "s", "--set", "sweep.resources.gpus"], "is not KEY=VALUE"),
        (["resubmit", "s", "--set", "sweep.resources.gpus=many"], "--set: sweep.resources.gpus: expected"),
        (["resubmit", "s", "--set", "sweep.resources.gpu=2"], "did you mean 'gpus'?"),
        (["resubmit", "s", "--set", "sweep.timeout=never"], "--set: sweep.timeout: expected a duration"),
        (["resubmit", "s", "--set", "sweep.axes.x=1"], "--set sweep.axes.x: cannot be changed"),
        (["resubmit", "s", "--set", "optimizer.lr=1"], "--set optimizer.lr: is part of the trial's identity"),
    ],
)
def test_a_mistake_is_one_message(say: Say, words: list[str], told: str) -> None:
    said = say(*words)
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("orchestrate: ")
    assert told in said.err
    assert len(said.err.splitlines()) <= 2
    assert "Traceback" not in said.err


def test_failures_are_grouped(say: Say, sweep: Manifest) -> None:
    run(sweep, 4, replace(UGLY, message="ValueError: worse"))
    said = say("failures")
    assert said.code == 0
    assert said.lines[0] == "s: 2 of 6 trials failed, in 1 way"
    assert f"2×  train.py:7: ValueError: bad  (exception, orchestrate show {trial_id(2)[:8]})" in said.lines[1]
    assert said.lines[2].strip() == "all with optimizer=SGD, optimizer.lr=0.1"
    assert "resubmit s --cause exception" in said.lines[3]
    (group,) = say("failures", "s", "--json").json()
    assert (group["cause"], group["kind"], group["place"], group["count"]) == (
        "exception",
        "ValueError",
        "train.py:7",
        2,
    )
    assert group["trials"] == [trial_id(2), trial_id(4)]
    assert {"key": "optimizer", "value": "SGD", "trials": 2} in group["difference"]
    assert f"train.py:7: ValueError: bad  (2×, orchestrate show {trial_id(2)[:8]})" in say("status").out
    assert say("status", "--json").json()[0]["failures"][0]["trials"] == 2


def test_a_sweep_without_failures(say: Say, another: SweepFolder) -> None:
    assert say("failures", "another").lines == ["another: 0 of 1 trials failed"]
    assert say("failures", "another", "--json").out == ""


@pytest.mark.parametrize("cause", ["exception", "train.py:7"])
def test_resubmit_takes_one_group(sweep: Manifest, cause: str) -> None:
    run(sweep, 4, Outcome(State.FAILED, "oom", "its processes held 9 GiB"))
    assert resubmit.chosen(resubmit.parser().read(["s", "--cause", cause]), sweep.folder) == [trial_id(2)]
    assert len(resubmit.chosen(resubmit.parser().read(["s"]), sweep.folder)) == 2


def test_nothing_to_resubmit_or_to_stop(say: Say) -> None:
    assert say("resubmit", "s", "--lost").out == "s: no trial to run again\n"
    assert say("stop", "s").out == "s is not running\n"


def test_trials_of_several_sweeps_are_not_resubmitted_at_once(say: Say, another: SweepFolder) -> None:
    said = say("resubmit", "--trial", f"s/{trial_id(2)}", "--trial", f"another/{trial_id(50)}")
    assert said.code == 2
    assert "2 sweeps" in said.err


@pytest.mark.parametrize(
    "command", ["sweep", "plan", "try", "status", "trials", "show", "logs", "failures", "ls", "stop", "sync"]
)
def test_every_command_explains_itself(say: Say, command: str) -> None:
    said = say(command, "--help")
    assert said.code == 0
    assert said.lines[0].startswith(f"usage: orchestrate {command}")
    assert command in say("--help").out


def test_the_version(say: Say) -> None:
    assert say("--version").out.startswith("orchestrate ")


# ---------------------------------------------------------------- pipes


@pytest.mark.parametrize("words", [["trials", "--json"], ["--help"], ["ls"]])
def test_a_reader_that_goes_away_is_no_mistake(sweep: Manifest, tmp_path: Path, words: list[str]) -> None:
    command = [sys.executable, "-m", "orchestrator.cli", *words]
    if len(words) != 1 or words[0] != "--help":
        command += ["--runs", str(sweep.folder.path.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0


# ---------------------------------------------------------------- the live view


def drawn(sweep: Manifest, width: int = 100) -> str:
    from rich.console import Console

    with coordinated(sweep), Reader(sweep.folder) as reader:
        snap = snapshot.take(sweep.folder, reader)
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(view.render(snap, manifests.NOW + 65))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_the_live_view_shows_settings_as_they_are(sweep: Manifest) -> None:
    key = begin(sweep, 4)
    text = drawn(sweep)
    assert "gru SGD lr=0.1" in text
    assert "valid/acc 0.25" in text
    assert "1m 04s" in text
    end(sweep, key)
    plan(sweep, [trial_spec(20, overrides={"layers": ["bold", "/bold"]})])
    begin(sweep, 20)
    assert "layers=[bold,/bold]" in drawn(sweep)


def test_a_narrow_terminal_cuts_neither_counts_nor_the_failed_trial(sweep: Manifest) -> None:
    run(sweep, 4, Outcome(State.FAILED, "exception", "a message " * 30, place="train.py:7"))
    lines = drawn(sweep, width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[0].startswith("s  ")
    assert "4/6" in lines[0]
    (told,) = [line for line in lines if "a message" in line]
    assert trial_id(4)[:8] in told
    assert told.rstrip().endswith("…")


def test_ways_to_fail_beyond_the_first_are_counted(say: Say, sweep: Manifest) -> None:
    plan(sweep, [trial_spec(number) for number in range(40, 45)])
    for number in range(40, 45):
        run(sweep, number, Outcome(State.FAILED, "exception", f"message {number}", place="train.py:7"))
    assert "2 more in other ways" in drawn(sweep)
    assert "  failed: 2 more in other ways  (orchestrate failures s)" in say("status").lines


def test_the_plain_view_is_one_line_a_transition() -> None:
    said: list[str] = []
    plain = view.PlainView(2, 0, said.append)
    spec = trial_spec(1, overrides={"model": "lstm"})
    live = Live(
        1,
        spec,
        1,
        (),
        0.0,
        Resources(),
        started=Started(1.0, "node-a", "", 7, ("3",), (), 1, "fork"),
        metrics={"loss": "NaN"},
    )
    changes = [
        (State.LAUNCHING, "", False),
        (State.RUNNING, "", False),
        (State.LOST, "the node went away", True),
        (State.CANCELLED, "", True),
        (State.CANCELLED, "as asked", False),
        (State.FAILED, "KeyError: 'x'", False),
        (State.SUCCEEDED, "", False),
    ]
    plain.show(Transition(spec, 1, state, live, message, "train.py:8", retry) for state, message, retry in changes)
    name = f"{trial_id(1)[:8]}  lstm"
    assert said[:4] == [
        f"→ {name}  on node-a gpu 3",
        f"↻ {name}  lost, runs again: train.py:8: the node went away",
        f"⊘ {name}  cancelled: as asked",  # it runs again with the sweep: not finished
        f"✗ {name}  failed: train.py:8: KeyError: 'x'  [1/2]",
    ]
    assert said[4].startswith(f"✓ {name}  loss NaN  ")
    assert said[4].endswith("[2/2]")
    assert len(said) == 5
