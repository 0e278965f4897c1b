"""Which trials are launched, when, and with what order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.manifest.writer import Manifest
from orchestrator.model.sweep import State
from tests.unit import manifests
from tests.unit.coordinator.support import Scene
from tests.unit.manifests import sweep_spec, trial_id, trial_spec


def test_trials_are_launched_in_the_order_of_the_plan_while_there_is_room(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=5, slots=2)
    assert sweep.launched() == [0, 1]
    assert sweep.states() == [State.LAUNCHING, State.LAUNCHING, *[State.PENDING] * 3]
    sweep.tick(1)
    assert sweep.launched() == [0, 1, 2]
    sweep.tick(0, 2)
    sweep.tick(3, 4)
    assert sweep.launched() == [0, 1, 2, 3, 4]
    assert sweep.coordinator.done
    assert sweep.states() == [State.SUCCEEDED] * 5


def test_a_decision_is_durable_before_it_is_acted_on(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=3)
    assert [row.state for row in sweep.executor.seen_at_launch] == [State.LAUNCHING] * 3
    assert [row.created for row in sweep.executor.seen_at_launch] == [1001.0] * 3


def test_what_an_order_says(scene: Callable[..., Scene]) -> None:
    sweep = scene(
        trials=1, spec=sweep_spec(grace=3.0, start="spawn", deterministic="error", timeout=90.0, heartbeat=5.0)
    )
    (order,) = sweep.executor.launched
    folder = sweep.manifest.folder
    assert (order.sweep_uid, order.trial_id, order.attempt) == (sweep.manifest.uid, trial_id(0), 1)
    assert (str(order.trainer), order.config, order.seed) == ("train:train", {"x": 0, "model": {"size": 0}}, 1)
    assert (order.import_path, order.cwd, order.folder) == (("/sweep/code",), "/work", str(folder.trial(trial_id(0))))
    assert (order.threads, order.gpus, order.grace) == (2, 0.0, 3.0)
    assert (order.timeout, order.heartbeat) == (90.0, 5.0)
    assert (order.start, order.deterministic, order.returned, order.restore) == ("spawn", "error", "loss", ())


def test_max_concurrent(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=5, max_concurrent=2)
    assert sweep.launched() == [0, 1]
    sweep.tick(0)
    assert sweep.launched() == [0, 1, 2]


def test_limit_takes_the_first_trials_of_the_plan(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=5, limit=2)
    assert sweep.launched() == [0, 1]
    sweep.tick(0, 1)
    assert sweep.coordinator.done
    assert sweep.states()[2:] == [State.PENDING] * 3


def test_more_trials_than_are_looked_up_at_once(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=600)
    assert len(sweep.executor.launched) == 600
    assert [order.trial_id for order in sweep.executor.launched] == [trial_id(number) for number in range(600)]


def test_a_full_cluster_is_waited_for_without_spinning(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1, slots=0)
    sweep.tick()
    assert sweep.launched() == []
    assert sweep.executor.timeouts[1] > 0, "nothing runs, but something waits for room"
    sweep.executor.slots = 1
    sweep.tick()
    assert sweep.launched() == [0]


def test_nothing_to_do_is_done_at_once(scene: Callable[..., Scene], manifest: Manifest) -> None:
    sweep = scene(trials=0)
    assert sweep.coordinator.done
    sweep.coordinator.run(lambda transitions: pytest.fail("nothing changes"))
    assert sweep.reader.plan().ended is not None  # type: ignore[union-attr]


def test_finished_trials_are_not_run_again(scene: Callable[..., Scene], manifest: Manifest) -> None:
    manifests.plan(manifest, [trial_spec(0), trial_spec(1)])
    manifests.run(manifest, 0)
    manifests.run(manifest, 1, manifests.FAILURE)
    assert scene(trials=3).launched() == [2]
