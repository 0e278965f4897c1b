"""When the first trials all fail alike, and when that says nothing about the rest."""

from __future__ import annotations

from typing import Any

from orchestrator.decide.early_abort import EarlyAbort, choices
from orchestrator.model.events import Outcome
from orchestrator.model.sweep import State, TrialSpec
from tests.unit.manifests import FAILURE, LOST, SUCCESS, trial_spec

OTHER = Outcome(State.FAILED, "exception", "KeyError: 'y'", "Traceback …", "train.py:9")
AGAIN = Outcome(State.LOST, "lost_worker", "gone", retry=True)


def trial(number: int, model: str = "lstm", **more: Any) -> TrialSpec:
    """A trial of this option of the group `model`."""
    overrides = {"model": model, "act": "relu", **more}
    return trial_spec(number, overrides=overrides, config={"model": {"cells": 1}, "act": "relu", **more})


def early_abort(*ends: Outcome, models: str = "lgt", least: int = 3, **how: Any) -> EarlyAbort:
    """After these ends, of trials that have these models."""
    several = {"model", "act"} if len(set(models)) > 1 else {"act"}
    found = EarlyAbort(least, how.get("succeeded", False), lambda: several)
    for number, (end, model) in enumerate(zip(ends, models * 9, strict=False)):
        found.take(trial(number, model), end)
    return found


def test_as_many_that_fail_alike() -> None:
    assert not early_abort(FAILURE, FAILURE).hopeless
    assert early_abort(FAILURE, FAILURE, FAILURE).hopeless
    assert early_abort(FAILURE, least=1, models="l").hopeless
    assert early_abort(LOST, LOST, LOST).hopeless


def test_the_verdict() -> None:
    assert early_abort(FAILURE, FAILURE).verdict is None
    assert early_abort(*[FAILURE] * 4).verdict == "4 of 4 trials failed at train.py:88: KeyError: 'x'"
    assert early_abort(LOST, LOST, LOST).verdict == "3 of 3 trials failed alike: the worker went away"


def test_hope() -> None:
    assert not early_abort(FAILURE, FAILURE, OTHER).hopeless
    assert not early_abort(FAILURE, FAILURE, SUCCESS, FAILURE).hopeless
    assert not early_abort(*[FAILURE] * 3, SUCCESS).hopeless, "one that still ran has succeeded"
    assert not early_abort(*[FAILURE] * 9, succeeded=True).hopeless
    assert not early_abort(*[FAILURE] * 9, least=0).hopeless


def test_what_is_tried_again_has_not_failed() -> None:
    assert not early_abort(AGAIN, AGAIN, AGAIN).hopeless
    found = early_abort()
    for _ in range(3):
        found.take(trial(0), FAILURE)
    assert not found.hopeless, "one trial, resubmitted"


def test_another_option_is_waited_for() -> None:
    found = EarlyAbort(3, False, lambda: {"model", "act"})
    for number in range(5):
        found.take(trial(number), FAILURE)
    assert not found.hopeless, "the sweep has other models"
    found.take(trial(5, "gru"), FAILURE)
    assert found.hopeless


def test_options_and_values() -> None:
    assert choices(trial(0, lr=0.1)) == {"model": "lstm"}
    overrides = {"db/engine": "large", "opt@train.opt": "adam", "extra": None, "name": None, "a.b": "x", "a.c": "y"}
    spec = trial_spec(0, overrides=overrides, config={"name": None, "a": {"b": "x", "c": {}}})
    assert choices(spec) == {"db/engine": "large", "opt@train.opt": "adam", "extra": None, "a.c": "y"}
