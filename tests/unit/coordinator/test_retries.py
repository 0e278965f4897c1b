"""How attempts end, and which trials get another one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Ended
from orchestrator.model.sweep import Retries, State
from tests.unit.coordinator.support import DONE, FAILED, GONE, STARTED, Scene
from tests.unit.manifests import sweep_spec, trial_id


def test_each_change_of_state_is_a_transition(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    (running,) = sweep.tell(0, STARTED)
    assert (running.state, running.attempt, running.live.started) == (State.RUNNING, 1, STARTED)
    (failed,) = sweep.tell(0, FAILED)
    assert (failed.state, failed.message, failed.place, failed.retry) == (
        State.FAILED,
        "KeyError: 'x'",
        "train.py:88",
        False,
    )
    (row,) = sweep.attempts(0)
    assert (row.cause, row.traceback, row.started, row.ended) == ("exception", "Traceback …", 1.0, 2.0)


def exhaust(sweep: Scene, end: Ended, *, start: bool = True) -> int:
    """End every attempt at trial 0 like this; returns how many there were."""
    attempt = 1
    while not sweep.coordinator.done:
        sweep.tell(0, *([STARTED] if start else []), end, attempt=attempt)
        attempt += 1
        assert attempt < 50
    return attempt - 1


@pytest.mark.parametrize(
    ("retries", "attempts"), [(Retries(), 1), (Retries(error=2), 3), (Retries(error=2, lost=0), 3)]
)
def test_failures_have_a_budget(scene: Callable[..., Scene], retries: Retries, attempts: int) -> None:
    sweep = scene(trials=1, spec=sweep_spec(retries=retries))
    assert exhaust(sweep, FAILED) == attempts
    assert sweep.states() == [State.FAILED]


@pytest.mark.parametrize(("retries", "attempts"), [(Retries(), 4), (Retries(lost=0), 1), (Retries(error=5, lost=1), 2)])
def test_losses_have_another(scene: Callable[..., Scene], retries: Retries, attempts: int) -> None:
    sweep = scene(trials=1, spec=sweep_spec(retries=retries))
    assert exhaust(sweep, GONE) == attempts
    assert sweep.states() == [State.LOST]


def test_the_budgets_are_separate(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1, spec=sweep_spec(retries=Retries(error=1, lost=1)))
    for attempt, end in enumerate([GONE, FAILED], start=1):
        (*_, ended, _launching) = sweep.tell(0, STARTED, end, attempt=attempt)
        assert ended.retry
    sweep.tell(0, STARTED, FAILED, attempt=3)
    assert sweep.states() == [State.FAILED]
    assert len(sweep.attempts(0)) == 3


def test_an_attempt_that_never_started_is_free(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1, spec=sweep_spec(retries=Retries(lost=0)))
    for attempt in (1, 2, 3):
        sweep.tell(0, GONE, attempt=attempt)
    sweep.tell(0, STARTED, DONE, attempt=4)
    assert sweep.states() == [State.SUCCEEDED]


def test_one_that_never_starts_is_given_up(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    assert 1 < exhaust(sweep, GONE, start=False) < 20
    assert sweep.states() == [State.LOST]


def test_the_death_of_the_coordinator_is_free(scene: Callable[..., Scene], manifest: Manifest) -> None:
    retries = sweep_spec(retries=Retries(error=0, lost=0))
    for attempt in range(1, 6):
        sweep = scene(trials=1, spec=retries)
        sweep.tell(0, STARTED, attempt=attempt)
        with manifest.transaction():
            assert manifest.attempts.recover(1.0) == 1
    sweep = scene(trials=1, spec=retries)
    sweep.tell(0, STARTED, DONE, attempt=6)
    assert sweep.states() == [State.SUCCEEDED]


def test_one_bad_trial_does_not_hold_the_others(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=3, slots=1)
    sweep.tell(0, STARTED, FAILED)
    sweep.tick(1)
    sweep.tick(2)
    assert sweep.states() == [State.FAILED, State.SUCCEEDED, State.SUCCEEDED]


def test_a_retry_goes_before_the_rest_of_the_plan(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=3, slots=1)
    sweep.tell(0, STARTED, GONE)
    assert sweep.launched() == [0, 0]


def test_out_of_memory_is_retried_alone(scene: Callable[..., Scene]) -> None:
    """One retry with nothing beside it, on as many threads as before. After a resubmit it is not alone any more."""
    sweep = scene(trials=1)
    full = Ended(2.0, signal=9, asked="oom", detail="held 9 GiB")
    sweep.tell(0, STARTED, full)
    assert [size.alone for size in sweep.executor.placed] == ["", "node"]
    assert len({order.threads for order in sweep.executor.launched}) == 1
    sweep.tell(0, STARTED, full, attempt=2)
    sweep.coordinator.resubmit([trial_id(0)])
    sweep.tick()
    assert [size.alone for size in sweep.executor.placed] == ["", "node", ""]
