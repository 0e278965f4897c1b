"""When a sweep ends early because its first trials all fail in the same way, and when it does not."""

from __future__ import annotations

from typing import Any

from orchestrator.decide.early_abort import EarlyAbort, group_options
from orchestrator.model.events import Outcome
from orchestrator.model.sweep import Objective, State, TrialSpec
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


def reason(found: EarlyAbort) -> str | None:
    return found.verdict.reason if found.verdict else None


def test_it_is_due_when_enough_trials_failed_alike() -> None:
    assert not early_abort(FAILURE, FAILURE).due
    assert early_abort(FAILURE, FAILURE, FAILURE).due
    assert early_abort(FAILURE, minimum=1, models="l").due
    assert early_abort(LOST, LOST, LOST).due


def test_the_reason_names_the_failure() -> None:
    assert reason(early_abort(FAILURE, FAILURE)) is None
    assert reason(early_abort(*[FAILURE] * 4)) == "4 of 4 trials failed at train.py:88: KeyError: 'x'"
    assert reason(early_abort(LOST, LOST, LOST)) == "3 of 3 trials failed alike: the worker went away"


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


# ---------------------------------------------------------------- the objective


def unmeasured(*reported: dict[str, float], minimum: int = 3, running: tuple[Any, ...] = (), **how: Any) -> EarlyAbort:
    """The state after trials have succeeded with these metrics, where the objective is `acc`."""
    objective = Objective("acc", "max", "last")
    found = EarlyAbort(minimum, True, lambda: {"model"}, objective, how.get("reported", False))
    for number, metrics in enumerate(reported):
        found.record(trial(number, "lg"[number % 2] if how.get("models", True) else "l"), SUCCESS, metrics, running)
    return found


def test_it_is_due_when_enough_trials_ended_without_the_objective() -> None:
    assert not unmeasured({}, {}).due
    assert unmeasured({}, {}, {}).due
    assert not unmeasured({}, {"acc": 1.0}, {}, {}).due
    assert not unmeasured({}, {}, {}, {"acc": float("nan")}).due
    assert not unmeasured({}, {}, {}, running=({"acc": 1.0},)).due, "one that runs has reported it"
    assert not unmeasured(*[{}] * 9, reported=True).due
    assert not unmeasured(*[{}] * 9, minimum=0).due
    assert not unmeasured({}, {}, {}, models=False).due, "the other model may report it"


def test_the_verdict_names_what_was_reported_and_says_what_to_write() -> None:
    found = unmeasured({"loss": 1.0, "Acc": 0.5}, {"loss": 1.0}, {}).verdict
    assert found is not None
    assert found.reason == (
        "3 of 3 trials ended without a report of 'acc', which is sweep.objective.metric; they reported 'loss', 'Acc'"
    )
    assert found.fix.startswith("write sweep.objective.metric=Acc in the command")
    nothing = unmeasured({}, {}, {}).verdict
    assert nothing is not None
    assert "nothing at all" in nothing.reason
    assert nothing.fix.startswith("have the trainer report it: run.report({'acc': …})")


def test_options_of_groups_are_distinguished_from_values() -> None:
    assert group_options(trial(0, lr=0.1)) == {"model": "lstm"}
    overrides = {"db/engine": "large", "opt@train.opt": "adam", "extra": None, "name": None, "a.b": "x", "a.c": "y"}
    spec = trial_spec(0, overrides=overrides, config={"name": None, "a": {"b": "x", "c": {}}})
    assert group_options(spec) == {"db/engine": "large", "opt@train.opt": "adam", "extra": None, "a.c": "y"}
