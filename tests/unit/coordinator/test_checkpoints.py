"""What a further attempt goes on from, and what that does to the trial's series."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.model.events import Restored
from orchestrator.model.order import Checkpoint
from orchestrator.model.sweep import Objective
from tests.unit.coordinator.support import DONE, GONE, STARTED, Scene, rows, saved
from tests.unit.manifests import sweep_spec, trial_id


def test_a_checkpoint_that_is_taken_keeps_the_series(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, rows(0.9, 0.8, 0.1), saved(1), GONE)
    assert sweep.executor.launched[-1].restore == (Checkpoint(1, "checkpoints/1"),)
    sweep.tell(0, STARTED, Restored(1, "checkpoints/1-step-1.state", 0.0), attempt=2)
    (trial,) = sweep.reader.trials()
    assert (trial.metrics, trial.objective) == ({"loss": 0.8}, 0.8), "what lay behind the checkpoint is void"
    sweep.tell(0, rows(0.7, step=2), DONE, attempt=2)
    assert sweep.attempts(0)[-1].lineage == 1
    assert {step: row["loss"] for step, row in sweep.reader.series(trial_id(0)).items()} == {0: 0.9, 1: 0.8, 2: 0.7}


def test_the_best_of_a_series_does_not_count_what_was_superseded(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1, spec=sweep_spec(objective=Objective("loss", "min", "best")))
    sweep.tell(0, STARTED, rows(0.9, 0.8, 0.1), saved(1), GONE)
    sweep.tell(0, STARTED, Restored(1, "checkpoints/1-step-1.state", 0.0), rows(0.85, step=2), DONE, attempt=2)
    (trial,) = sweep.reader.trials()
    assert trial.objective == 0.8


def test_a_checkpoint_that_is_not_taken_begins_a_series(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, rows(0.1), saved(0), GONE)
    sweep.tell(0, STARTED, rows(0.9), attempt=2)
    assert sweep.attempts(0)[-1].lineage == 2
    (trial,) = sweep.reader.trials()
    assert (trial.metrics, trial.objective) == ({"loss": 0.9}, 0.9)
    assert sweep.reader.series(trial_id(0)) == {0: {"loss": 0.9}}
    sweep.tell(0, GONE, attempt=2)
    assert sweep.executor.launched[-1].restore == (), "the older series' checkpoint is not offered again"


@pytest.mark.parametrize("together", [False, True])
def test_a_report_before_the_restore_does_not_cost_the_series(scene: Callable[..., Scene], together: bool) -> None:
    """The attempt begins a series of its own, and rejoins the old one; in one batch or in several."""
    sweep = scene(trials=1, spec=sweep_spec(objective=Objective("loss", "min", "best")))
    sweep.tell(0, STARTED, rows(0.9, 0.8, 0.1), saved(1), GONE)
    events = (STARTED, rows(7.0, metric="size"), Restored(1, "checkpoints/1", 0.0), rows(0.7, step=2), saved(2))
    if together:
        sweep.tell(0, *events, attempt=2)
    else:
        for event in events:
            sweep.tell(0, event, attempt=2)
    assert sweep.attempts(0)[-1].lineage == 1
    assert sweep.reader.series(trial_id(0)) == {0: {"loss": 0.9, "size": 7.0}, 1: {"loss": 0.8}, 2: {"loss": 0.7}}
    (trial,) = sweep.reader.trials()
    assert (trial.metrics, trial.objective) == ({"loss": 0.7, "size": 7.0}, 0.7)
    sweep.tell(0, GONE, attempt=2)
    assert sweep.executor.launched[-1].restore == (Checkpoint(2, "checkpoints/2"), Checkpoint(1, "checkpoints/1"))


def test_a_retry_without_a_checkpoint_begins_a_series(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, rows(0.1), GONE)
    assert (sweep.executor.launched[-1].restore, sweep.attempts(0)[-1].lineage) == ((), 2)


def test_a_success_is_run_anew(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, saved(0), DONE)
    sweep.coordinator.resubmit([trial_id(0)])
    sweep.tick()
    assert (sweep.executor.launched[-1].restore, sweep.attempts(0)[-1].lineage) == ((), 2)
