"""What `resubmit --set` may change, and what it refuses because it would make another trial."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.errors import ConfigError
from orchestrator.language import changes
from orchestrator.model.sweep import Resources, Retries, SweepSpec, TrialSpec

SPEC = SweepSpec("s", "work:train", ignore=("data.*", "workers"), timeout=60.0, retries=Retries(error=1))
TRIAL = TrialSpec(
    "0123456789ab",
    {"lr": 0.1, "workers": 4, "data": {"root": "/a", "token": "${oc.env:TOKEN}"}},
    {},
    1,
    "c",
    references={"data.token": "${oc.env:TOKEN}"},
    resources=Resources(gpus=1.0, memory=5, labels={"zone": "north"}),
)


def test_resources_that_are_not_named_stay() -> None:
    changed = changes.trial(SPEC, TRIAL, {"sweep.resources.gpus": 2, "sweep.resources.cpus": "auto"})
    assert changed == replace(TRIAL, resources=Resources(gpus=2.0, memory=5, labels={"zone": "north"}))


def test_an_ignored_key_can_be_changed() -> None:
    changed = changes.trial(SPEC, TRIAL, {"workers": 0, "data.root": "/b"})
    assert changed.config == {"lr": 0.1, "workers": 0, "data": {"root": "/b", "token": "${oc.env:TOKEN}"}}
    assert TRIAL.config["data"]["root"] == "/a"


def test_settings_of_the_sweep_can_be_changed() -> None:
    assert changes.sweep(SPEC, {"sweep.timeout": None, "sweep.retries.oom": 3, "workers": 1}) == replace(
        SPEC, timeout=None, retries=Retries(error=1, oom=3)
    )
    assert changes.sweep(SPEC, {"sweep.resources.gpus": 2}) is SPEC


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 1}, "--set lr: is part of the trial's identity"),
        ({"data.place": 1}, "--set data.place: the config has no such key"),
        ({"data.token": "x"}, "--set data.token: is resolved when the trial starts"),
        ({"sweep.resources.gpus": 1.5}, "--set: sweep.resources.gpus: expected whole GPUs"),
        ({"sweep.trainer": "a:b"}, "--set sweep.trainer: cannot be changed"),
        ({"sweep.retries": "often"}, "--set: sweep.retries: expected a whole number"),
    ],
)
def test_other_changes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changes.trial(changes.sweep(SPEC, settings), TRIAL, settings)
    assert str(caught.value).startswith(message)
