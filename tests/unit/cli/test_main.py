"""The command line itself: mistakes, help, version, closed pipes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.manifest.writer import Manifest
from tests.unit.cli.support import Command


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["statsu"], "did you mean orchestrate status?"),
        (["best"], "did you mean orchestrate show best?"),
        (["kill"], "did you mean orchestrate stop?"),
        (["clean"], "nothing is ever deleted here"),
        (["xyz"], "orchestrate --help lists them"),
        (["help", "statsu"], "did you mean orchestrate status?"),
        (["resubmit", "s", "--trial", "last", "--set", "x"], "is not KEY=VALUE"),
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
        (["sweep"], "the following arguments are required: FILE\n"),
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
def test_a_mistake_is_one_message(orchestrate: Command, words: list[str], message: str) -> None:
    output = orchestrate(*words)
    assert output.code == 2
    assert output.out == ""
    assert output.err.startswith("orchestrate: ")
    assert message in output.err
    assert len(output.err.splitlines()) <= 2
    assert "Traceback" not in output.err


@pytest.mark.parametrize(
    "command",
    ["sweep", "plan", "try", "status", "trials", "show", "logs", "failures", "ls", "stop", "resubmit", "sync"],
)
def test_every_command_has_help(orchestrate: Command, command: str) -> None:
    output = orchestrate(command, "--help")
    assert output.code == 0
    assert output.lines[0].startswith(f"usage: orchestrate {command}")
    assert command in orchestrate("--help").out
    assert f"examples:\n  orchestrate {command}" in output.out
    assert orchestrate("help", command).out == output.out


def test_the_package_is_the_command(sweep: Manifest) -> None:
    command = [sys.executable, "-m", "orchestrator", "ls", "--runs", str(sweep.folder.path.parent)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("s  ")


def test_version(orchestrate: Command) -> None:
    assert orchestrate("--version").out.startswith("orchestrate ")


@pytest.mark.parametrize("words", [["trials", "--json"], ["--help"], ["ls"]])
def test_a_closed_pipe_is_not_an_error(sweep: Manifest, tmp_path: Path, words: list[str]) -> None:
    command = [sys.executable, "-m", "orchestrator.cli", *words]
    if len(words) != 1 or words[0] != "--help":
        command += ["--runs", str(sweep.folder.path.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0
