"""`trials`: which trials, in which order and format."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import pty
import subprocess
import sys
from collections.abc import Sequence

import pytest

from orchestrator.cli.trials import SCREENFUL
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Outcome
from orchestrator.model.sweep import State
from tests.unit.cli.support import Command, Output
from tests.unit.manifests import plan, run, trial_id, trial_spec


def column(output: Output, name: str) -> list[str]:
    """A column of CSV output."""
    return [row[name] for row in csv.DictReader(io.StringIO(output.out))]


def ids(numbers: Sequence[int]) -> list[str]:
    return [trial_id(number) for number in numbers]


def test_trials_are_a_table_by_default(orchestrate: Command) -> None:
    output = orchestrate("trials")
    titles, *rows = output.lines
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
def test_options_select_and_sort_trials(orchestrate: Command, words: list[str], numbers: list[int]) -> None:
    output = orchestrate("trials", *words, "--format", "csv")
    assert output.code == 0
    assert column(output, "trial_id") == ids(numbers)
    assert [row["trial_id"] for row in orchestrate("trials", *words, "--json").json()] == ids(numbers)


def test_trials_as_json(orchestrate: Command) -> None:
    found = orchestrate("trials", "--json").json()
    assert found == orchestrate("trials", "--format", "json").json()
    assert found[1]["metrics"] == {"valid/acc": 0.79, "valid/loss": "NaN"}
    assert found[1]["overrides"] == {"model": "lstm", "optimizer": "adam", "optimizer.lr": 0.001}
    assert found[1]["config"]["optimizer"] == {"lr": 0.001, "betas": [0.9, 0.99]}
    assert (found[2]["state"], found[2]["cause"], found[2]["attempts"]) == ("FAILED", "exception", 1)
    assert (found[4]["state"], found[4]["cause"], found[4]["attempts"]) == ("PENDING", None, 0)
    assert found[5]["overrides"]["model"] == "gru\x1b[31m"


def test_show_and_trials_give_the_same_json(orchestrate: Command, sweep: Manifest) -> None:
    odd = {"clip": math.inf, "by step": {1: "a"}, "text": 'quo"te\n', "floor": -0.0}
    plan(sweep, [trial_spec(40, config=odd, overrides={"clip": math.inf}), trial_spec(41)])
    run(sweep, 40, Outcome(State.FAILED, "exception", 'a "message"\n'), **{"valid/acc": "-Infinity"})
    for row in orchestrate("trials", "--json").json():
        (alone,) = orchestrate("show", row["trial_id"], "--json").json()
        assert {**alone, "attempts": len(alone["attempts"])} == {
            **row, **{key: alone[key] for key in ("series", "provenance", "rerun", "files")}
        }  # fmt: skip


def on_terminal(sweep: Manifest, *words: str, pager: str = "cat") -> list[str]:
    """The lines that a command prints on a real terminal, 500 columns wide."""
    environment = {**os.environ, "COLUMNS": "500", "PAGER": pager, "TERM": "xterm"}
    reading_end, terminal = pty.openpty()
    command = [sys.executable, "-m", "orchestrator.cli", *words, "--runs", str(sweep.folder.path.parent)]
    with subprocess.Popen(command, stdout=terminal, env=environment) as process:
        os.close(terminal)
        text = b""
        with contextlib.suppress(OSError):  # EIO: the command has closed the terminal
            while block := os.read(reading_end, 1 << 16):
                text += block
    os.close(reading_end)
    assert process.returncode == 0
    return text.decode().splitlines()


def test_a_terminal_shows_the_first_trials_and_a_pipe_gets_all(orchestrate: Command, sweep: Manifest) -> None:
    plan(sweep, [trial_spec(number) for number in range(100, 100 + SCREENFUL + 2)])
    assert len(orchestrate("trials").lines) == 1 + SCREENFUL + 2
    assert orchestrate("trials", "--limit", "0").lines == orchestrate("trials").lines
    shown = on_terminal(sweep, "trials")
    assert (len(shown), shown[-1]) == (1 + SCREENFUL + 1, "… and 2 more: --limit 0 shows all")
    assert len(on_terminal(sweep, "trials", "--limit", "0")) == 1 + SCREENFUL + 2
    assert len(on_terminal(sweep, "trials", "--limit", "3")) == 1 + 3
    assert len(on_terminal(sweep, "trials", "--json")) == SCREENFUL + 2


def test_a_terminal_with_a_pager_gets_all_trials_through_it(orchestrate: Command, sweep: Manifest) -> None:
    plan(sweep, [trial_spec(number) for number in range(100, 100 + SCREENFUL + 2)])
    shown = on_terminal(sweep, "trials", pager="sed s/^/paged/")
    assert len(shown) == 1 + SCREENFUL + 2
    assert all(line.startswith("paged") for line in shown)
    assert on_terminal(sweep, "show", trial_id(100), pager="head -n 1") == [f"trial {trial_id(100)} of s: PENDING"]
    assert on_terminal(sweep, "failures", pager="no-such-pager") == ["s: 0 of 52 trials failed"]
    assert orchestrate("trials").lines[0].startswith("trial"), "a pipe has no pager"


def test_a_column_has_values_of_all_trials_even_if_it_varies_in_some(orchestrate: Command, sweep: Manifest) -> None:
    specs = [
        trial_spec(50, overrides={"a": 1, "lr": 0.5}, config={"a": 1, "lr": 0.5}),
        trial_spec(51, overrides={"a": 2}, config={"a": 2, "lr": 0.25}),
        trial_spec(52, overrides={"a": True}, config={"a": True}),
    ]
    plan(sweep, specs)
    run(sweep, 50, lr=0.125)
    output = orchestrate("trials", "--columns", "a,lr,seconds", "--format", "csv").lines
    assert output == ["a,lr,seconds", "1,0.5,9.000", "2,0.25,", "true,,"]


def test_columns_can_be_chosen(orchestrate: Command) -> None:
    words = "trial_id,seconds,optimizer.betas,model.name,valid/acc,cause"
    output = orchestrate("trials", "--columns", words, "--format", "csv", "--state", "failed")
    assert "\r" not in output.out
    (row,) = csv.DictReader(io.StringIO(output.out))
    assert row == {
        "trial_id": trial_id(2),
        "seconds": "9.000",
        "optimizer.betas": "[0.9,0.99]",
        "model.name": "lstm",
        "valid/acc": "0.9",
        "cause": "exception",
    }
    assert orchestrate("trials", "--columns", "trial_id,lr", "--limit", "1").code == 2
    assert orchestrate("trials", "--columns", "trial_id,optimizer.lr", "--limit", "1").lines[0].split() == [
        "trial",
        "lr",
    ]
