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
from dataclasses import replace

import pytest

from orchestrator import naming
from orchestrator.cli.trials import SCREENFUL
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Outcome
from orchestrator.model.sweep import Objective, State
from tests.unit.cli.support import MULTILINE_FAILURE, Command, Output, held
from tests.unit.manifests import (
    begin,
    end,
    key_of,
    opening,
    plan,
    report,
    run,
    sweep_spec,
    trial_id,
    trial_spec,
)


def column(output: Output, name: str) -> list[str]:
    """A column of CSV output."""
    return [row[name] for row in csv.DictReader(io.StringIO(output.out))]


def ids(numbers: Sequence[int]) -> list[str]:
    return [trial_id(number) for number in numbers]


def test_trials_are_a_table_by_default(orchestrate: Command) -> None:
    output = orchestrate("trials")
    titles, *rows = output.lines
    expected = ["trial", "state", "model", "optimizer", "lr", "valid/acc", "(last)", "valid/loss", "message"]
    assert titles.split() == expected
    assert len(rows) == 6
    assert rows[0].split()[-1] == "nan"
    assert rows[1].split() == [trial_id(0)[:8], "succeeded", "lstm", "adam", "0.01", "0.75", "0.5"]
    assert rows[3].endswith("ValueError: bad")
    assert "two\\nlines" in rows[5]


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ([], [1, 0, 3, 2, 4, 5]),
        (["--sort", "objective"], [1, 0, 3, 2, 4, 5]),
        (["--sort", "valid/acc"], [1, 0, 3, 2, 4, 5]),
        (["--sort", "-objective"], [0, 1, 3, 2, 4, 5]),
        (["--all"], [1, 0, 3, 2, 4, 5, 9]),
        (["--limit", "2"], [1, 0]),
        (["--all", "--limit", "7"], [1, 0, 3, 2, 4, 5, 9]),
        (["--state", "failed"], [2]),
        (["--state", "SUCCEEDED"], [1, 0]),
        (["--state", "waiting"], [3, 4]),
        (["--state", "pending"], [3, 4]),
        (["--where", "state=Waiting,failed"], [3, 2, 4]),
        (["--where", "state!=waiting,failed"], [1, 0, 5]),
        (["--where", "optimizer=adam"], [1, 0, 3]),
        (["--where", "optimizer=adam", "--where", "optimizer.lr=1e-2"], [0, 3]),
        (["--where", "lr=0.01,0.001"], [1, 0, 3]),
        (["--where", "lr>=0.1"], [2, 4, 5]),
        (["--where", "lr<0.01"], [1]),
        (["--where", "optimizer!=adam,SGD"], [5]),
        (["--where", "valid/acc>0.5"], [1, 0, 2]),
        (["--where", "objective>0.5", "--where", "state!=failed"], [1, 0]),
        (["--where", "seconds=9"], [1, 0, 2, 5]),
        (["--where", "model.name=gru"], [3, 4]),
        (["--where", "optimizer.betas=[0.9,0.99]"], [1, 0, 3, 2, 4, 5]),
        (["--where", "optimizer=nothing"], []),
        (["--sort", "valid/loss", "--state", "succeeded"], [0, 1]),
        (["--sort=valid/acc", "--limit=1", "--where", "model=lstm"], [1]),
    ],
)
def test_options_select_and_sort_trials(orchestrate: Command, words: list[str], numbers: list[int]) -> None:
    output = orchestrate("trials", *words, "--format", "csv")
    assert output.code == 0
    assert column(output, "trial_id") == ids(numbers)
    assert [row["trial_id"] for row in orchestrate("trials", *words, "--json").json()] == ids(numbers)


def test_people_read_one_word_for_a_state_and_programs_its_constant(orchestrate: Command, sweep: Manifest) -> None:
    plan(sweep, [trial_spec(number) for number in range(90, 93)])
    with sweep.transaction():
        sweep.attempts.open(opening(key_of(sweep, 90)))
    run(sweep, 91, Outcome(State.STOPPED))
    words, constants = ["waiting", "stopped early", "waiting"], ["LAUNCHING", "STOPPED", "PENDING"]
    assert orchestrate("trials", "--columns", "state").lines[1:] == words
    with held(sweep):
        assert column(orchestrate("trials", "--format", "csv"), "state") == constants
        assert [row["state"] for row in orchestrate("trials", "--json").json()] == constants
    for number, word in enumerate(words):
        assert orchestrate("show", trial_id(90 + number)).lines[0].endswith(f": {word}")
    assert "attempt 1: stopped early" in orchestrate("show", trial_id(91)).out
    for option in (["--state", "waiting"], ["--where", "state=waiting"]):
        assert column(orchestrate("trials", *option, "--format", "csv"), "trial_id") == ids([90, 92])
    assert orchestrate("status").lines[0].endswith("2 waiting · 1 stopped early")


def test_a_trial_whose_coordinator_died_waits_as_status_says(orchestrate: Command, sweep: Manifest) -> None:
    """The manifest has it as running until the sweep is run again."""

    def states() -> list[str]:
        found = [row["state"] for row in orchestrate("trials", "--json", "--where", "model=gru").json()]
        assert found == column(orchestrate("trials", "--where", "model=gru", "--format", "csv"), "state")
        (shown,) = orchestrate("show", trial_id(3), "--json").json()
        return [*found, shown["state"]]

    counts = orchestrate("status", "--json").json()[0]["counts"]
    assert (counts["RUNNING"], counts["PENDING"]) == (0, 2)
    assert states() == ["PENDING", "PENDING", "PENDING"]
    assert column(orchestrate("trials", "--state", "waiting", "--format", "csv"), "trial_id") == ids([3, 4])
    assert orchestrate("trials", "--where", "state=running").lines == ["no trial matches"]
    lines = orchestrate("show", trial_id(3)).lines
    assert lines[0].endswith(": waiting")
    assert any(line.startswith("attempt 1: not ended, its coordinator died") for line in lines)
    with held(sweep):
        assert states() == ["RUNNING", "PENDING", "RUNNING"]
        assert column(orchestrate("trials", "--state", "running", "--format", "csv"), "trial_id") == ids([3])
        assert orchestrate("show", trial_id(3)).lines[0].endswith(": running")


def test_a_trial_is_named_by_its_first_digits_in_a_condition_too(orchestrate: Command, sweep: Manifest) -> None:
    odd = "12e456780000"  # YAML reads its first digits as a number
    plan(sweep, [trial_spec(7), trial_spec(8), replace(trial_spec(9), trial_id=odd)])
    short = trial_id(7)[:8]
    assert column(orchestrate("trials", "--where", f"trial={short}", "--format", "csv"), "trial_id") == ids([7])
    assert column(orchestrate("trials", "--where", "trial=12e4567", "--format", "csv"), "trial_id") == [odd]
    found = orchestrate("trials", "--where", f"trial_id={trial_id(8)}, {short}", "--format", "csv")
    assert column(found, "trial_id") == ids([7, 8])
    assert column(orchestrate("trials", "--where", f"trial!={short},12e", "--format", "csv"), "trial_id") == ids([8])


def test_an_unknown_state_is_an_error_wherever_a_state_is_asked_for(orchestrate: Command) -> None:
    for option, word in (("--state", "succeded"), ("--where", "state=failed,succeded")):
        output = orchestrate("trials", option, word)
        assert (output.code, output.err) == (
            2, f"orchestrate: {option}: no such state: succeded\n  → did you mean succeeded?\n"
        )  # fmt: skip
    assert "waiting, running, succeeded" in orchestrate("trials", "--state", "7").err


def test_a_table_says_that_there_are_more_metrics_than_it_shows(orchestrate: Command, sweep: Manifest) -> None:
    plan(sweep, [trial_spec(95)], spec=sweep_spec(objective=Objective("m0", "max", "last")))
    run(sweep, 95, **{f"m{number}": 0.5 for number in range(7)})
    shown = orchestrate("trials").lines
    assert shown[0].split()[3:] == ["m0", "(last)", "m1", "m2", "m3", "m4"]
    assert shown[2:] == ["… and 2 more metrics: --columns shows those that you name, --format csv all"]
    assert len(orchestrate("trials", "--columns", "trial,m1").lines) == 2
    assert "more metric" not in orchestrate("trials", "--format", "csv").out


def test_trials_as_json(orchestrate: Command) -> None:
    assert orchestrate("trials", "--json").json() == orchestrate("trials", "--format", "json").json()
    by_id = {row["trial_id"]: row for row in orchestrate("trials", "--json").json()}
    found = [by_id[each] for each in ids(range(6))]
    assert found[1]["metrics"] == {"valid/acc": 0.79, "valid/loss": "NaN"}
    assert found[1]["overrides"] == {"model": "lstm", "optimizer": "adam", "optimizer.lr": 0.001}
    assert found[1]["config"]["optimizer"] == {"lr": 0.001, "betas": [0.9, 0.99]}
    assert (found[2]["state"], found[2]["cause"], found[2]["attempts"]) == ("FAILED", "exception", 1)
    assert (found[4]["state"], found[4]["cause"], found[4]["attempts"]) == ("PENDING", None, 0)
    assert found[5]["overrides"]["model"] == "gru\x1b[31m"


def test_show_and_trials_give_the_same_json(orchestrate: Command, sweep: Manifest) -> None:
    odd = {"clip": math.inf, "by step": {1: "a"}, "text": 'quo"te\n', "floor": -0.0}
    spec = sweep_spec(objective=Objective("valid/acc", "max", "best"))
    plan(sweep, [trial_spec(40, config=odd, overrides={"clip": math.inf}), trial_spec(41)], spec=spec)
    run(sweep, 40, Outcome(State.FAILED, "exception", 'a "message"\n'), **{"valid/acc": "-Infinity"})
    for row in orchestrate("trials", "--json").json():
        (alone,) = orchestrate("show", row["trial_id"], "--json").json()
        assert {**alone, "attempts": len(alone["attempts"])} == {
            **row, **{key: alone[key] for key in ("series", "provenance", "rerun", "files")}
        }  # fmt: skip


def on_terminal(sweep: Manifest, *words: str, pager: str = "cat", width: int = 500) -> list[str]:
    """The lines that a command prints on a real terminal."""
    environment = {**os.environ, "COLUMNS": str(width), "PAGER": pager, "TERM": "xterm"}
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


@pytest.mark.parametrize(("width", "metrics"), [(100, 4), (80, 3), (58, 2), (57, 1), (40, 0)])
def test_a_narrow_terminal_gets_as_many_metrics_as_fit(
    orchestrate: Command, sweep: Manifest, width: int, metrics: int
) -> None:
    plan(sweep, [trial_spec(96)], spec=sweep_spec(objective=Objective("m0", "max", "last")))
    run(sweep, 96, m0=0.5, **{f"a/metric/{number}": 0.5 for number in range(5)})
    shown = on_terminal(sweep, "trials", width=width)
    assert shown[0].count("a/metric/") == metrics
    assert shown[2].startswith(f"… and {naming.count(5 - metrics, 'more metric')}: ")
    assert max(map(len, shown[:2])) <= width
    chosen = on_terminal(sweep, "trials", "--columns", "trial,a/metric/1,a/metric/2,a/metric/3", width=20)
    assert chosen[0].split() == ["trial", "a/metric/1", "a/metric/2", "a/metric/3"]


def test_a_terminal_with_a_pager_gets_all_trials_through_it(orchestrate: Command, sweep: Manifest) -> None:
    plan(sweep, [trial_spec(number) for number in range(100, 100 + SCREENFUL + 2)])
    shown = on_terminal(sweep, "trials", pager="sed s/^/paged/")
    assert len(shown) == 1 + SCREENFUL + 2
    assert all(line.startswith("paged") for line in shown)
    assert on_terminal(sweep, "show", trial_id(100), pager="head -n 1") == [f"trial {trial_id(100)} of s: waiting"]
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
    output = orchestrate("trials", "--columns", "a,setting:lr,metric:lr,seconds", "--format", "csv").lines
    assert output == ["a,setting:lr,metric:lr,seconds", "1,0.5,0.125,9.000", "2,0.25,,", "true,,,"]


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
    for name in ("lr", "optimizer.lr", "setting:optimizer.lr"):
        assert orchestrate("trials", "--columns", f"trial,{name}", "--limit", "1").lines[0].split() == ["trial", "lr"]


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("objective", [None, Objective("objective", "min", "best")])
def test_settings_metrics_and_fixed_columns_may_have_the_same_names(
    orchestrate: Command, sweep: Manifest, objective: Objective | None
) -> None:
    words = [
        "objective",
        "seconds",
        "state",
        "trial",
        "trial_id",
        "seed",
        "attempts",
        "node",
        "message",
        "loss",
        "cause",
    ]
    settings = {name: f"s-{name}" for name in words}
    plan(sweep, [trial_spec(60, overrides=settings, config=settings)], spec=sweep_spec(objective=objective))
    key = begin(sweep, 60)
    metrics = {name: number + 0.5 for number, name in enumerate(words)} | {"metric:loss": 7.0, "step": 9.0}
    report(sweep, key, 1, 0, **metrics)
    end(sweep, key)
    (row,) = csv.DictReader(io.StringIO(orchestrate("trials", "--format", "csv").out))
    assert len(row) == 2 + len(settings) + len(metrics) + (objective is not None)
    for number, name in enumerate(words):
        assert row[f"setting:{name}"] == f"s-{name}"
        assert row[f"metric:{name}"] == f"{number + 0.5}"
    assert (row["metric:metric:loss"], row["step"], row["state"]) == ("7.0", "9.0", "SUCCEEDED")
    titles = orchestrate("trials").lines[0].split()
    assert len(set(titles)) == len(titles)
    for name in words:
        for kind, value in (("setting", f"s-{name}"), ("metric", repr(metrics[name]))):
            output = orchestrate("trials", "--columns", f"{kind}:{name}", "--format", "csv")
            assert output.lines == [f"{kind}:{name}", value]
            assert len(orchestrate("trials", "--where", f"{kind}:{name}={value}", "--json").lines) == 1
    assert "setting:loss or metric:loss" in orchestrate("trials", "--columns", "loss").err
    assert orchestrate("trials", "--sort", "metric:seconds").code == 0
    (shown,) = orchestrate("show", trial_id(60), "--json").json()
    assert shown["series"] == [{"step": 0, "metrics": metrics}]


def test_a_short_name_is_no_metric_of_the_same_name(orchestrate: Command, sweep: Manifest) -> None:
    plan(sweep, [trial_spec(61, overrides={"optimizer.lr": 0.5}, config={"optimizer": {"lr": 0.5}})])
    run(sweep, 61, loss=1.0, lr=0.25)
    assert orchestrate("trials").lines[0].split()[2:] == ["optimizer.lr", "loss", "(last)", "lr"]
    assert orchestrate("trials", "--columns", "lr,optimizer.lr", "--format", "csv").lines[1] == "0.25,0.5"


def test_an_unknown_name_is_told_with_near_ones(orchestrate: Command) -> None:
    for words in (["--where", "optimizer.l=1"], ["--columns", "optimizer.l"], ["--sort", "optimizer.l"]):
        output = orchestrate("trials", *words)
        assert output.code == 2
        assert f"{words[0]}: no trial has 'optimizer.l'\n  → did you mean optimizer" in output.err
        assert "optimizer.lr" in output.err
    assert "is no condition" in orchestrate("trials", "--where", "lr").err
    assert "needs one number" in orchestrate("trials", "--where", "lr>a").err
    assert "not YAML" in orchestrate("trials", "--where", "lr=[").err


def test_values_are_typed_as_in_the_sweep_file(orchestrate: Command, sweep: Manifest) -> None:
    values = ["none", None, "cosine", 1e-3, True, 1]
    specs = [trial_spec(70 + n, overrides={"s": value}, config={"s": value}) for n, value in enumerate(values)]
    plan(sweep, specs)

    def found(condition: str) -> list[int]:
        rows = orchestrate("trials", "--where", condition, "--json").json()
        return [number for number in range(len(values)) if trial_id(70 + number) in [row["trial_id"] for row in rows]]

    assert found("s=none") == [0]
    assert found("s=null") == [1]
    assert found("s=0.001") == found("s=1e-3") == [3]
    assert found("s=true") == [4]
    assert found("s=1") == [5]
    assert found("s=none,cosine") == [0, 2]
    assert found("s!=none,cosine") == [1, 3, 4, 5]
    assert found("s<1") == [3]
    assert found("s>=1e-3") == [3, 5]


def test_a_metric_that_is_not_finite_is_found_as_a_table_and_a_file_write_it(
    orchestrate: Command, sweep: Manifest
) -> None:
    plan(sweep, [trial_spec(75 + number) for number in range(4)])
    for number, loss in enumerate(["NaN", "Infinity", "-Infinity", 1.5]):
        run(sweep, 75 + number, acc=loss)

    def found(condition: str) -> list[str]:
        return column(orchestrate("trials", "--where", condition, "--format", "csv"), "acc")

    assert found("acc=nan") == found("acc=.nan") == found("acc=NaN") == ["nan"]
    assert found("acc=inf,-.inf") == found("acc=Infinity,-Infinity") == ["inf", "-inf"]
    assert found("acc!=nan,1.5") == ["inf", "-inf"]
    assert found("acc!=nan,one") == ["inf", "-inf", "1.5"]


def test_the_option_of_a_group_is_shown_alike_under_every_plan(orchestrate: Command, sweep: Manifest) -> None:
    """A plan that does not vary the group keeps its choice too."""
    config = {"model": {"name": "mlp"}, "lr": 0.5}
    plan(sweep, [trial_spec(80, overrides={"lr": 0.5}, config=config, choices={"model": "mlp"})])
    overrides = {"model": "lstm", "lr": 0.5}
    plan(sweep, [trial_spec(81, overrides=overrides, config=config, choices={"model": "lstm"})])
    words = ("trials", "--all", "--where", "lr=0.5")
    assert column(orchestrate(*words, "--format", "csv"), "model") == ["lstm", "mlp"]
    rows = orchestrate(*words, "--where", "model=mlp", "--json").json()
    assert [(row["trial_id"], row["choices"]) for row in rows] == [(trial_id(80), {"model": "mlp"})]


# ---------------------------------------------------------------- the step of the objective, and repeats


@pytest.fixture
def overfitted(sweep: Manifest) -> Manifest:
    """One trial whose best step is not its last; its test accuracy is reported at every second step."""
    plan(sweep, [trial_spec(90)], spec=sweep_spec(objective=Objective("loss", "min", "best")))
    key = begin(sweep, 90)
    for step, loss in enumerate([3.0, 1.0, 2.0]):
        report(sweep, key, 1, step, loss=loss, **({} if step % 2 else {"test": step / 10}))
    end(sweep, key)
    return sweep


@pytest.mark.parametrize(("words", "at", "metrics"), [([], "best", (1.0, 0.0)), (["--at", "last"], "last", (2.0, 0.2))])
def test_metrics_are_those_at_the_step_of_the_objective(
    orchestrate: Command, overfitted: Manifest, words: list[str], at: str, metrics: tuple[float, float]
) -> None:
    loss, test = metrics
    output = orchestrate("trials", *words)
    assert output.lines[0].split()[2:] == ["x", "loss", f"({at})", "test"]
    assert output.lines[1].split()[3:] == [f"{loss:g}", f"{test:g}"]
    assert orchestrate("trials", *words, "--columns", "objective,loss,test", "--format", "csv").lines == [
        f"loss ({at}),loss,test", f"{loss},{loss},{test}",
    ]  # fmt: skip
    for command in (["trials"], ["show", trial_id(90)]):
        (row,) = orchestrate(*command, *words, "--json").json()
        assert (row["at"], row["objective"], row["best_step"]) == (at, loss, 1)
        assert row["metrics"] == {"loss": loss, "test": test}
    assert f"  objective loss {loss!r} ({at}" in orchestrate("show", trial_id(90), *words).out
    assert len(orchestrate("trials", *words, "--where", f"test={test}", "--json").lines) == 1


def test_configs_are_compared_by_their_means(orchestrate: Command, sweep: Manifest) -> None:
    values = {0: [0.5, 0.7], 1: [0.9, 0.1], 2: [0.8, None]}
    specs = [
        trial_spec(100 + 2 * lr + seed, overrides={"opt.lr": lr, "seed": seed}, seed=seed, config_id=f"{lr:012}")
        for seed in range(2)
        for lr in values
    ]
    plan(sweep, specs, spec=sweep_spec(objective=Objective("acc", "max"), repeats=2))
    for lr, seeds in values.items():
        for seed, acc in enumerate(seeds):
            run(sweep, 100 + 2 * lr + seed, *([MULTILINE_FAILURE] if acc is None else []), acc=acc or 0.0)
    rows = orchestrate("trials", "--by", "config", "--json").json()
    assert [(row["overrides"], row["ranked"], row["trials"][0]) for row in rows] == [
        ({"opt.lr": 0}, True, trial_id(101)),
        ({"opt.lr": 1}, True, trial_id(102)),
        ({"opt.lr": 2}, False, trial_id(104)),
    ]
    assert rows[0]["mean"] == pytest.approx(0.6)
    assert column(orchestrate("trials", "--format", "csv"), "acc (last)") == ["0.7", "0.5", "0.9", "0.1", "0.8", "0.0"]
    status = orchestrate("status").lines
    assert f"  best: acc 0.6 ± 0.14 (2 of 2)  {trial_id(101)[:8]}  lr=0" in status
    assert f"  best single trial, not the best config: acc 0.9  {trial_id(102)[:8]}  lr=1 seed=0" in status
    lines = orchestrate("trials", "--by", "config", "--where", "lr>0").lines
    assert [line.split()[0] for line in lines] == ["lr", "1", "2"]
    assert lines[2].endswith(f"0.8 (1 of 2, 1 failed)  {trial_id(104)[:8]}")


def test_a_config_of_one_trial_is_marked_where_its_value_does_not_count(orchestrate: Command, sweep: Manifest) -> None:
    report(sweep, begin(sweep, 4), 1, 0, **{"valid/acc": 0.95})
    lines = orchestrate("trials", "--by", "config").lines
    for number, value in ((0, "0.75"), (2, "0.9 (failed)"), (4, "0.95 (provisional)")):
        (line,) = [line for line in lines if line.endswith(trial_id(number)[:8])]
        assert line.removesuffix(trial_id(number)[:8]).rstrip().endswith(f"  {value}")
