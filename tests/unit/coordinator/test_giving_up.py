"""When the rest of a sweep is not started, and when a node is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from orchestrator.errors import ResourceError
from orchestrator.manifest.writer import Manifest
from orchestrator.model.sweep import State
from tests.unit import manifests
from tests.unit.coordinator.support import DONE, FAILED, GONE, STARTED, Scene, rows
from tests.unit.manifests import sweep_spec, trial_spec


def test_when_the_first_trials_fail_alike_the_rest_is_not_started(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=6, slots=1)
    for number in range(3):
        assert not sweep.coordinator.done
        sweep.tell(number, STARTED, FAILED)
    assert sweep.launched() == [0, 1, 2]
    assert sweep.coordinator.done
    verdict = sweep.coordinator.early_abort.verdict
    assert verdict is not None
    assert verdict.reason == "3 of 3 trials failed at train.py:88: KeyError: 'x'"
    assert sweep.states() == [State.FAILED] * 3 + [State.PENDING] * 3


def test_launches_pause_and_go_on_when_one_that_runs_succeeds(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=6, slots=4)
    for number in range(3):
        sweep.executor.tell(number, STARTED, FAILED)
    sweep.tick()
    assert sweep.launched() == [0, 1, 2, 3]
    assert not sweep.coordinator.done
    sweep.tick(3)
    assert sweep.launched() == [0, 1, 2, 3, 4, 5]
    assert sweep.coordinator.early_abort.verdict is None


def test_one_success_keeps_the_sweep_going(scene: Callable[..., Scene], manifest: Manifest) -> None:
    manifests.plan(manifest, [trial_spec(0)])
    manifests.run(manifest, 0)
    sweep = scene(trials=6, slots=1)
    for number in range(1, 6):
        sweep.tell(number, STARTED, FAILED)
    assert sweep.launched() == [1, 2, 3, 4, 5]


def test_zero_lets_every_trial_run(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=5, slots=1, spec=sweep_spec(stop_after_failures=0))
    for number in range(5):
        sweep.tell(number, STARTED, FAILED)
    assert sweep.launched() == [0, 1, 2, 3, 4]


def test_when_the_first_trials_never_report_the_objective_the_rest_is_not_started(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=6, slots=1)
    for number in range(3):
        sweep.tell(number, STARTED, rows(1.0, metric="los"), DONE)
    assert sweep.launched() == [0, 1, 2]
    assert sweep.coordinator.done
    verdict = sweep.coordinator.early_abort.verdict
    assert verdict is not None
    assert "without a report of 'loss'" in verdict.reason
    again = scene(trials=6, slots=1)
    assert not again.coordinator.done, "the next run tries again"
    again.tell(3, STARTED, rows(1.0), DONE)
    later = scene(trials=9, slots=1)
    for number in range(5, 8):
        later.tell(number, STARTED, DONE)
    assert later.launched() == [5, 6, 7, 8], "a trial has reported it before"


def lose_three(sweep: Scene) -> None:
    """One trial succeeds on a good node, three lose their workers on a bad one."""
    sweep.tell(0, replace(STARTED, node_id="good"), DONE)
    for number in (1, 2, 3):
        sweep.tell(number, replace(STARTED, node="host", node_id="bad"), GONE)


def test_a_node_in_quarantine_gets_no_more_trials(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=6, slots=4, spec=sweep_spec(objective=None))
    lose_three(sweep)
    assert sweep.coordinator.warnings == [
        "host gets no more trials: 3 in a row failed there, the last one with a lost worker"
    ]
    placed = [resources.labels for resources in sweep.executor.placed]
    assert placed[0] == {}
    assert placed[-1] == {"ray.io/node-id": "!in(bad)"}


def test_a_node_is_not_left_out_if_no_other_has_what_is_asked_for(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=6, slots=4, refused=ResourceError("no node has that"))
    lose_three(sweep)
    assert sweep.coordinator.warnings
    assert all(resources.labels == {} for resources in sweep.executor.placed)


def test_the_options_of_a_plan_are_counted(manifest: Manifest) -> None:
    options = [{"model": "lstm", "act": "relu", "lr": 1}, {"model": "gru", "act": "relu", "lr": 2, "extra": None}]
    old = manifests.plan(manifest, [trial_spec(9, overrides={"act": "tanh"})])
    plan = manifests.plan(manifest, [trial_spec(number, overrides=given) for number, given in enumerate(options)])
    assert manifest.trials.several_options(plan) == {"model"}
    assert manifest.trials.several_options(old) == set()
