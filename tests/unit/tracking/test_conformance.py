"""What every tracker holds to: each step arrives once with the right values, whatever happens on the way."""

from __future__ import annotations

import pytest

from orchestrator.model.sweep import State
from orchestrator.tracking import control
from orchestrator.tracking.trackers import TRACKERS
from tests.unit.tracking.support import Receiver, Shown, Sweep, id_of, one, until

GONE, BLOCKED = "the folder is missing", "a folder is in its place"


def _losses(*steps: int) -> list[dict[str, float]]:
    return [{"loss": step / 2} for step in steps]


def _in_order(receiver: Receiver) -> list[Shown]:
    return sorted(receiver.runs(), key=lambda run: (run.trial, run.attempt))


@pytest.mark.parametrize(
    ("tracker", "kinds"),
    [
        ("wandb", ("503", "429", "drop")),
        ("wandb", ("429", "drop", "503 for long")),
        ("wandb", ("drop", "503", "429")),
        ("jsonl", (GONE, BLOCKED, GONE)),
    ],
    indirect=["tracker"],
)
def test_every_step_arrives_once_whenever_there_is_an_outage(
    receiver: Receiver, sweep: Sweep, kinds: tuple[str, str, str]
) -> None:
    """At the start, in the middle and at the end of a run."""
    receiver.fail(kinds[0])
    sweep.track()
    sweep.begin()
    sweep.report(range(10))
    until(lambda: receiver.failing(sweep))
    receiver.recover()
    until(lambda: receiver.runs() and one(receiver, 0).steps == list(range(9)))
    receiver.fail(kinds[1])
    sweep.report(range(10, 20))
    until(lambda: receiver.failing(sweep))
    receiver.recover()
    until(lambda: one(receiver, 0).steps == list(range(19)))
    sweep.log.write_text("")
    receiver.fail(kinds[2])
    sweep.report(range(20, 30))
    sweep.end(State.SUCCEEDED)
    sweep.release()
    until(lambda: receiver.failing(sweep))
    receiver.recover()
    assert sweep.finish()
    run = one(receiver, 0)
    assert (run.steps, run.metrics, run.exit_code) == (list(range(30)), _losses(*range(30)), 0)


def test_a_tracker_that_is_killed_is_continued_by_the_next(receiver: Receiver, sweep: Sweep) -> None:
    sweep.track()
    sweep.begin()
    sweep.report(range(10))
    until(lambda: receiver.runs() and len(one(receiver, 0).steps) >= 5)
    sweep.tracker.kill()
    sweep.tracker.wait()
    sweep.report(range(10, 20))
    sweep.track()
    until(lambda: one(receiver, 0).steps == list(range(19)))
    sweep.report(range(19, 20), acc=0.5)  # a second report of this step
    sweep.end(State.SUCCEEDED)
    assert sweep.close()
    run = one(receiver, 0)
    assert (run.steps, run.exit_code) == (list(range(20)), 0)
    assert run.metrics == [*_losses(*range(19)), {"loss": 9.5, "acc": 0.5}]


@pytest.mark.parametrize("tracker", ["jsonl"], indirect=True)  # W&B, while its server is away: tests/ray
def test_a_tracker_gives_way_to_that_of_the_next_coordinator(receiver: Receiver, sweep: Sweep) -> None:
    sweep.track()
    sweep.begin()
    sweep.report(range(5))
    until(lambda: receiver.runs() and one(receiver, 0).steps == list(range(4)))
    receiver.fail(GONE)  # it cannot end by itself
    sweep.report(range(5, 10))
    sweep.release()
    sweep.open()
    first = sweep.tracker
    sweep.track()
    assert first.wait(20) == 1
    receiver.recover()
    sweep.end(State.SUCCEEDED)
    assert sweep.close()
    assert (one(receiver, 0).steps, one(receiver, 0).exit_code) == (list(range(10)), 0)


def test_a_retry_is_a_new_run_from_scratch_and_the_same_run_from_a_checkpoint(receiver: Receiver, sweep: Sweep) -> None:
    """And a replay of all of it, after the ledger was lost, changes nothing."""
    sweep.track()
    for trial in (0, 1):
        sweep.begin(trial)
        sweep.report(range(6), trial)
        sweep.end(State.LOST, trial, retry=True)
    until(lambda: len(receiver.runs()) == 2 and all(run.steps == list(range(5)) for run in receiver.runs()))
    assert {run.exit_code for run in receiver.runs()} == {None}  # it may go on
    sweep.begin(0, attempt=2, lineage=2)
    sweep.report(range(4), 0, attempt=2)
    sweep.begin(1, attempt=2, lineage=1, restored=3)
    sweep.report(range(4, 9), 1, attempt=2, again=1)
    for trial in (0, 1):
        sweep.end(State.SUCCEEDED, trial, attempt=2)
    assert sweep.close()
    old, new, resumed = one(receiver, 0), one(receiver, 0, attempt=2), one(receiver, 1)
    assert (old.exit_code, old.tags, old.steps) == (1, ["superseded"], list(range(6)))
    assert (new.exit_code, new.tags, new.steps) == (0, [], list(range(4)))
    # Step 4 was shown before the attempt was lost; step 5 was not, and is the second attempt's alone.
    assert (resumed.exit_code, resumed.steps) == (0, list(range(9)))
    assert resumed.metrics == _losses(*range(5)) + [{"again": 1}] * 4
    before = _in_order(receiver)
    sweep.folder.tracker_ledger(sweep.name).unlink()
    assert sweep.sync() == 3  # all of it once more, and nothing arrives twice
    assert _in_order(receiver) == before


@pytest.mark.fault(
    "wandb",
    "an attempt reports before it restores",
    "a run is opened for it, which it leaves again; W&B, and JSON lines with a tracker that is killed meanwhile",
    "one whole run of the trial; the other is tagged superseded",
)
@pytest.mark.parametrize(
    ("tracker", "killed"), [("wandb", False), ("jsonl", False), ("jsonl", True)], indirect=["tracker"]
)
def test_a_series_that_was_left_and_rejoined(receiver: Receiver, sweep: Sweep, killed: bool) -> None:
    """An attempt that reports before it restores has a run of its own for a while, which is superseded in the end."""
    sweep.track()
    sweep.begin()
    sweep.report(range(6))
    sweep.end(State.LOST, retry=True)
    sweep.begin(attempt=2)
    sweep.begin_anew(0, attempt=2)
    sweep.report(range(3), attempt=2, early=1)
    until(lambda: len(receiver.runs()) == 2 and one(receiver, 0, 2).steps == [0, 1])
    until(lambda: (one(receiver, 0).tags, one(receiver, 0).exit_code) == (["superseded"], 1))
    if killed:
        sweep.tracker.kill()
        sweep.tracker.wait()
    sweep.rejoin(0, attempt=2, lineage=1, step=4)
    sweep.report(range(5, 9), attempt=2)
    sweep.end(State.SUCCEEDED, attempt=2)
    if killed:
        sweep.track()
    assert sweep.close()
    whole, left = one(receiver, 0), one(receiver, 0, attempt=2)
    assert (whole.steps, whole.exit_code, whole.tags) == ([*range(6), *range(6, 9)], 0, [])
    assert (left.exit_code, left.tags) == (255, ["superseded"])
    before = _in_order(receiver)
    sweep.folder.tracker_ledger(sweep.name).unlink()
    assert sweep.sync() == 1
    assert _in_order(receiver) == before


def test_a_coordinator_that_died_is_followed_again_when_it_returns(receiver: Receiver, sweep: Sweep) -> None:
    sweep.track()
    sweep.begin()
    sweep.report(range(5))
    until(lambda: receiver.runs() and one(receiver, 0).steps == list(range(4)))
    assert sweep.close()  # with an attempt that nobody has closed
    assert (one(receiver, 0).steps, one(receiver, 0).exit_code) == (list(range(5)), 255)
    sweep.open()
    sweep.end(State.LOST, retry=True)
    sweep.track()
    sweep.begin(attempt=2, restored=2)
    sweep.report(range(3, 8), attempt=2)
    sweep.end(State.FAILED, attempt=2)
    until(lambda: one(receiver, 0).exit_code == 1)
    sweep.begin(attempt=3, lineage=3)  # resubmitted: what was finished turns out to be superseded
    sweep.end(State.CANCELLED, attempt=3)
    assert sweep.close()
    run = one(receiver, 0)
    assert (run.steps, run.metrics) == (list(range(8)), _losses(*range(8)))
    assert (run.exit_code, run.tags) == (1, ["superseded"])
    assert one(receiver, 0, attempt=3).exit_code == 255


def test_what_came_too_late_is_told_and_sent_whole_as_a_new_run(receiver: Receiver, sweep: Sweep) -> None:
    """Training reports steps 0 to 4, then evaluation reports the same ones."""
    (title,) = (kind.title for name, kind in TRACKERS.items() if name == sweep.name)
    sweep.track()
    sweep.begin()
    sweep.report(range(5), loss=1.0)
    until(lambda: receiver.runs() and one(receiver, 0).steps == [0, 1, 2, 3])
    sweep.report(range(5), acc=0.5)
    sweep.end(State.SUCCEEDED)
    assert sweep.close()
    assert [sorted(row) for row in one(receiver, 0).metrics] == [*[["loss"]] * 4, ["acc", "loss"]]
    assert control.late(sweep.folder) == {title: {id_of(0): 4}}
    assert sweep.sync() == 0
    assert control.sync(sweep.folder, sweep.name, lambda _: None, [id_of(0), id_of(1)]) == 1
    old, new = sorted(receiver.runs(), key=lambda run: run.tags != ["superseded"])
    assert (old.tags, old.steps, new.tags, new.exit_code) == (["superseded"], list(range(5)), [], 0)
    assert (new.steps, [sorted(row) for row in new.metrics]) == (list(range(5)), [["acc", "loss"]] * 5)
    assert control.late(sweep.folder) == {}
    assert sweep.sync() == 0
    assert control.sync(sweep.folder, sweep.name, lambda _: None, [id_of(0)]) == 1
    assert [run.tags for run in receiver.runs()].count(["superseded"]) == 2
