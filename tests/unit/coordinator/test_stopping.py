"""Stopping in order, and killing."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.model.events import Ended
from orchestrator.model.order import Checkpoint
from orchestrator.model.sweep import State
from tests.unit.coordinator.support import DONE, FAILED, GONE, STARTED, Scene, rows, saved
from tests.unit.manifests import trial_id

CANCELLED = Ended(2.0, signal=15, asked="cancelled")


def test_stopping_cancels_what_runs_and_leaves_the_rest_waiting(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=4, slots=3)
    sweep.tell(0, STARTED, DONE)
    sweep.tell(1, STARTED)
    sweep.coordinator.request_stop()
    sweep.tick()
    assert sorted(sweep.executor.stopped) == sorted((trial_id(number), 1, "cancelled") for number in (1, 2, 3))
    assert not sweep.coordinator.done
    sweep.tell(1, rows(0.3), CANCELLED)
    sweep.tell(2, Ended(2.0, asked="cancelled"))
    sweep.tell(3, GONE)
    assert sweep.coordinator.done
    assert sweep.states() == [State.SUCCEEDED, State.CANCELLED, State.PENDING, State.PENDING]
    assert sweep.reader.exactly(trial_id(1)).metrics == {"loss": 0.3}, "its last words arrive"
    assert len(sweep.executor.launched) == 4


def test_one_that_ends_by_itself_while_stopping_has_succeeded(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED)
    sweep.coordinator.request_stop()
    sweep.tell(0, DONE)
    assert sweep.states() == [State.SUCCEEDED]


def test_killing_ends_at_once(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=2)
    sweep.tell(0, STARTED)
    sweep.coordinator.request_kill()
    sweep.tick()
    assert sweep.executor.killed
    assert sweep.coordinator.done
    assert sweep.states() == [State.CANCELLED, State.PENDING]


def test_killing_changes_no_end_that_has_arrived(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=3)
    sweep.tell(0, STARTED)
    sweep.coordinator.request_stop()
    sweep.tick()
    sweep.executor.tell(0, rows(0.3), DONE)
    sweep.executor.tell(1, STARTED, FAILED)
    sweep.coordinator.request_kill()
    assert [transition.state for transition in sweep.tick()] == [State.SUCCEEDED, State.RUNNING, State.FAILED]
    assert sweep.states() == [State.SUCCEEDED, State.FAILED, State.PENDING]
    assert sweep.reader.exactly(trial_id(0)).metrics == {"loss": 0.3}
    assert sweep.executor.killed


def test_what_was_stopped_goes_on_with_the_next_plan(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=2)
    sweep.tell(0, STARTED, saved(3))
    sweep.coordinator.request_stop()
    sweep.tell(0, CANCELLED)
    sweep.tell(1, Ended(2.0, asked="cancelled"))
    again = scene(trials=2)
    assert again.launched() == [0, 1]
    assert [order.restore for order in again.executor.launched] == [(Checkpoint(3, "checkpoints/3"),), ()]
