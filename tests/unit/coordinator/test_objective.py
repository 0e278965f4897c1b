"""Which of the reported numbers is the objective."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.model.events import Restored, Saved
from orchestrator.model.order import Checkpoint
from orchestrator.model.sweep import Objective
from tests.unit.coordinator.support import DONE, GONE, STARTED, Scene, rows
from tests.unit.manifests import sweep_spec, trial_id


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (Objective("loss", "min", "last"), 0.5),
        (Objective("loss", "min", "best"), 0.2),
        (Objective("loss", "max", "best"), 0.7),
        (Objective("other", "max", "best"), None),
        (None, None),
    ],
)
def test_objective(scene: Callable[..., Scene], objective: Objective | None, expected: float | None) -> None:
    sweep = scene(trials=1, spec=sweep_spec(objective=objective))
    sweep.tell(0, STARTED, rows(0.7, 0.2))
    sweep.tell(0, rows("NaN", 0.5, step=2), DONE)
    (trial,) = sweep.reader.trials()
    assert (trial.objective, trial.metrics) == (expected, {"loss": 0.5})


def test_a_last_value_that_is_not_finite_is_no_objective(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, rows(0.7, "NaN"), DONE)
    (trial,) = sweep.reader.trials()
    assert trial.objective is None


def test_a_success_without_its_objective_is_warned_of_once(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=3, spec=sweep_spec(objective=Objective("loss")))
    sweep.tell(0, STARTED, rows("NaN"), DONE)
    assert sweep.coordinator.warnings == []
    sweep.tell(1, STARTED, rows(1.0, metric="los"), DONE)
    sweep.tell(2, STARTED, DONE)
    (warning,) = sweep.coordinator.warnings
    assert warning == (
        "a trial succeeded without a report of 'loss', which is sweep.objective; "
        "it reported 'los': name one of these as sweep.objective.metric"
    )


def test_all_metrics_are_kept_at_the_best_step(scene: Callable[..., Scene]) -> None:
    """Rows of one step merge, whenever they come; evaluation after training reports earlier steps."""
    sweep = scene(trials=1, spec=sweep_spec(objective=Objective("loss", "min", "best")))
    sweep.tell(0, STARTED, rows(0.1, 0.2, 0.3, metric="train"), rows(0.7, 0.2, 0.5))
    sweep.tell(0, rows(0.9, step=1, metric="test"))
    (trial,) = sweep.reader.trials()
    assert (trial.best_step, trial.objective) == (1, 0.2)
    assert trial.best_metrics == {"train": 0.2, "loss": 0.2, "test": 0.9}
    assert trial.metrics == {"train": 0.3, "loss": 0.5, "test": 0.9}
    sweep.tell(0, rows(0.8, step=1), DONE)
    (trial,) = sweep.reader.trials()
    assert (trial.best_step, trial.objective) == (2, 0.5), "the best value was overwritten"


def test_the_best_step_is_found_again_after_a_restore(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1, spec=sweep_spec(objective=Objective("loss", "min", "best")))
    saved = Saved(Checkpoint(0, "checkpoints/1-step-0.state"), 1.0)
    path = sweep.manifest.folder.trial(trial_id(0)) / saved.checkpoint.path
    path.parent.mkdir(parents=True)
    path.touch()
    sweep.tell(0, STARTED, rows(0.7), saved, rows(0.1, step=1), GONE)
    sweep.coordinator.tick()
    sweep.tell(0, STARTED, Restored(0, saved.checkpoint.path, 1.0), attempt=2)
    (trial,) = sweep.reader.trials()
    assert (trial.best_step, trial.objective, trial.best_metrics) == (0, 0.7, {"loss": 0.7})
