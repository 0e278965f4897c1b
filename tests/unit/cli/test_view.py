"""The live view and the plain view."""

from __future__ import annotations

import io

from rich.console import Console

from orchestrator.cli import view
from orchestrator.coordinator.loop import Transition
from orchestrator.coordinator.recording import Live
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Outcome, Started
from orchestrator.model.sweep import Resources, State
from orchestrator.results.snapshot import read_snapshot
from tests.unit import manifests
from tests.unit.cli.support import Command, held
from tests.unit.manifests import begin, end, plan, run, trial_id, trial_spec


def drawn(sweep: Manifest, width: int = 100) -> str:
    """The live view as text, 65 seconds after the sweep began."""
    with held(sweep), Reader(sweep.folder) as reader:
        snap = read_snapshot(sweep.folder, reader)
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(view.render(snap, manifests.NOW + 65))
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
    assert output[:4] == [
        f"→ {name}  on node-a gpu 3",
        f"↻ {name}  lost, runs again: train.py:8: the node went away",
        f"⊘ {name}  cancelled: as asked",  # not counted as finished, because the same command runs it again
        f"✗ {name}  failed: train.py:8: KeyError: 'x'  [1/2]",
    ]
    assert output[4].startswith(f"✓ {name}  loss NaN  ")
    assert output[4].endswith("[2/2]")
    assert len(output) == 5
