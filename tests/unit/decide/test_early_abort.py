"""When a sweep ends early because its first trials all fail in the same way, and when it does not."""

from __future__ import annotations

from typing import Any

from orchestrator.decide.early_abort import EarlyAbort, group_options
from orchestrator.model.events import Outcome
from orchestrator.model.sweep import State, TrialSpec
from tests.unit.manifests import FAILURE, LOST, SUCCESS, trial_spec

OTHER_FAILURE = Outcome(State.FAILED, "exception", "KeyError: 'y'", "Traceback …", "train.py:9")
RETRIED_LOSS = Outcome(State.LOST, "lost_worker", "the worker went away", retry=True)


def trial(number: int, model: str = "lstm", **more: Any) -> TrialSpec:
    """A trial with this option of the group `model`."""
    overrides = {"model": model, "act": "relu", **more}
    return trial_spec(number, overrides=overrides, config={"model": {"cells": 1}, "act": "relu", **more})


def early_abort(*ends: Outcome, models: str = "lgt", minimum: int = 3, **how: Any) -> EarlyAbort:
    """The state after trials with these models have ended like this, each letter of `models` being a model."""
    groups = {"model", "act"} if len(set(models)) > 1 else {"act"}
    found = EarlyAbort(minimum, how.get("succeeded", False), lambda: groups)
    for number, (end, model) in enumerate(zip(ends, models * 9, strict=False)):
        found.record(trial(number, model), end)
    return found


def test_it_is_due_when_enough_trials_failed_alike() -> None:
    assert not early_abort(FAILURE, FAILURE).due
    assert early_abort(FAILURE, FAILURE, FAILURE).due
    assert early_abort(FAILURE, minimum=1, models="l").due
    assert early_abort(LOST, LOST, LOST).due


def test_the_reason_names_the_failure() -> None:
    assert early_abort(FAILURE, FAILURE).reason is None
    assert early_abort(*[FAILURE] * 4).reason == "4 of 4 trials failed at train.py:88: KeyError: 'x'"
    assert early_abort(LOST, LOST, LOST).reason == "3 of 3 trials failed alike: the worker went away"


def test_different_failures_or_a_success_prevent_it() -> None:
    assert not early_abort(FAILURE, FAILURE, OTHER_FAILURE).due
    assert not early_abort(FAILURE, FAILURE, SUCCESS, FAILURE).due
    assert not early_abort(*[FAILURE] * 3, SUCCESS).due, "a trial that was still running has succeeded"
    assert not early_abort(*[FAILURE] * 9, succeeded=True).due
    assert not early_abort(*[FAILURE] * 9, minimum=0).due


def test_a_trial_that_is_retried_has_not_failed() -> None:
    assert not early_abort(RETRIED_LOSS, RETRIED_LOSS, RETRIED_LOSS).due
    found = early_abort()
    for _ in range(3):
        found.record(trial(0), FAILURE)
    assert not found.due, "one trial, resubmitted, counts once"


def test_a_second_option_must_fail_too() -> None:
    found = EarlyAbort(3, False, lambda: {"model", "act"})
    for number in range(5):
        found.record(trial(number), FAILURE)
    assert not found.due, "the sweep has other models"
    found.record(trial(5, "gru"), FAILURE)
    assert found.due


def test_options_of_groups_are_distinguished_from_values() -> None:
    assert group_options(trial(0, lr=0.1)) == {"model": "lstm"}
    overrides = {"db/engine": "large", "opt@train.opt": "adam", "extra": None, "name": None, "a.b": "x", "a.c": "y"}
    spec = trial_spec(0, overrides=overrides, config={"name": None, "a": {"b": "x", "c": {}}})
    assert group_options(spec) == {"db/engine": "large", "opt@train.opt": "adam", "extra": None, "a.c": "y"}
