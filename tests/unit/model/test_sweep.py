"""What a sweep says of its trials."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.manifests import sweep_spec

CONFIG = {"training": {"epochs": 20, "name": "long"}, "epochs": 0, "on": True}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (None, None),
        (7, 7),
        ("${training.epochs}", 20),
        ("${ training.epochs }", 20),
        ("${training.epoch}", None),
        ("${training.epochs.x}", None),
        ("${training.name}", None),
        ("${epochs}", None),
        ("${on}", None),
    ],
)
def test_the_steps_of_a_full_training(steps: Any, expected: int | None) -> None:
    assert sweep_spec(steps=steps).steps_of(CONFIG) == expected
