"""The live view and the plain view."""

from __future__ import annotations

import io

from rich.console import Console

from orchestrator.cli import view
from orchestrator.coordinator.loop import Transition
from orchestrator.coordinator.recording import Live
from orchestrator.decide.standing import Standing
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Outcome, Started
from orchestrator.model.sweep import Objective, Resources, State
from orchestrator.results.snapshot import read_snapshot
from tests.unit import manifests
from tests.unit.cli.support import Command, held
from tests.unit.manifests import begin, end, plan, report, run, sweep_spec, trial_id, trial_spec


def drawn(sweep: Manifest, width: int = 100) -> str:
    """The live view as text, 65 seconds after the sweep began."""
    with held(sweep), Reader(sweep.folder) as reader:
        snap = read_snapshot(sweep.folder, reader)
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(view.render(snap, manifests.NOW + 65, width))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_the_live_view_does_not_read_settings_as_markup(sweep: Manifest) -> None:
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
    (line,) = [text for text in lines if "a message" in text]
    assert trial_id(4)[:8] in line
    assert line.rstrip().endswith("…")


def test_running_trials_are_told_apart_on_a_narrow_terminal(manifest: Manifest) -> None:
    """What they share is shortened first, the host is left out, and where there is room the metric follows at once."""
    models = ("lstm_bidirectionnal", "bi_lstm_bidirectionnal")
    trials = [
        trial_spec(number, overrides={"embeddings": "fast_text_character", "model": model, "optimizer.lr": 0.1})
        for number, model in enumerate(models, 20)
    ]
    plan(manifest, trials, spec=sweep_spec(objective=Objective("valid/acc", "max")))
    for number in (20, 21):
        report(manifest, begin(manifest, number), 1, 0, **{"valid/acc": 0.25, "train/loss": 0.5, "lr": 0.1})
    narrow = [line for line in drawn(manifest, width=56).splitlines() if "gpu 1" in line]
    assert max(map(len, narrow)) <= 56
    assert [line.split()[1:3] for line in narrow] == [["…", "lstm_…onnal"], ["…", "bi_ls…onnal"]]
    assert "valid/acc 0.25" in narrow[0]
    assert "train/loss" not in narrow[0]
    assert "  best    valid/acc 0.25 (provisional)" in drawn(manifest, width=56), "a mark at the end would be cut"
    wide = [line for line in drawn(manifest, width=200).splitlines() if "gpu 1" in line]
    assert "fast_text_character lstm_bidirectionnal lr=0.1     valid/acc 0.25  train/loss 0.5  gpu 1" in wide[0]
    assert "node-a" not in drawn(manifest)


def test_steps_of_a_full_training_are_shown(orchestrate: Command, sweep: Manifest) -> None:
    trials = [trial_spec(number, config={"epochs": 20}) for number in (20, 21, 22)]
    plan(sweep, trials, spec=sweep_spec(steps="${epochs}"))
    for number, steps in ((20, range(3)), (21, range(1, 4))):  # counted from 0, and from 1
        key = begin(sweep, number)
        for step in steps:
            report(sweep, key, 1, step, loss=0.5)
    begin(sweep, 22)
    with held(sweep):
        ids = [trial_id(number)[:8] for number in (20, 21, 22)]
        lines = [line for line in orchestrate("status").lines if "→" in line and line.split()[1] in ids]
        (found,) = orchestrate("status", "--json").json()
    assert [line.partition("step ")[2].split()[0] for line in lines] == ["3/20", "3/20", "0/20"]
    assert [(row["step"], row["steps"]) for row in found["running"]][-3:] == [(3, 20), (3, 20), (0, 20)]
    assert drawn(sweep).count("step 3/20") == 2


def test_further_groups_of_failures_are_counted(orchestrate: Command, sweep: Manifest) -> None:
    plan(sweep, [trial_spec(number) for number in range(40, 45)])
    for number in range(40, 45):
        run(sweep, number, Outcome(State.FAILED, "exception", f"message {number}", place="train.py:7"))
    assert "2 more in other ways" in drawn(sweep)
    assert "  failed: 2 more in other ways  (orchestrate failures s)" in orchestrate("status").lines


def test_the_plain_view_prints_one_line_per_transition() -> None:
    output: list[str] = []
    plain = view.PlainView(2, 0, output.append)
    spec = trial_spec(1, overrides={"model": "lstm"})
    live = Live(
        key=1,
        spec=spec,
        attempt=1,
        offered=(),
        lineage=1,
        created=0.0,
        resources=Resources(),
        standing=Standing(None, [(0, {"loss": "NaN"})]),
        started=Started(1.0, "node-a", "", 7, ("3",), (), 1, "fork"),
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
    assert output[:4] == [
        f"→ {name}  on node-a gpu 3",
        f"↻ {name}  lost, runs again: train.py:8: the node went away",
        f"⊘ {name}  cancelled: as asked",  # not counted as finished, because the same command runs it again
        f"✗ {name}  failed: train.py:8: KeyError: 'x'  [1/2]",
    ]
    assert output[4].startswith(f"✓ {name}  loss nan  ")
    assert output[4].endswith("[2/2]")
    assert len(output) == 5
