"""Which of the reported numbers is the objective."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.model.sweep import Objective
from tests.unit.coordinator.support import DONE, STARTED, Scene, rows
from tests.unit.manifests import sweep_spec


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
