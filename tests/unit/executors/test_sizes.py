"""What trials ask for, while nodes come and go."""

from __future__ import annotations

from typing import Any

from orchestrator.executors.sizes import Sizes
from orchestrator.model.sweep import Resources


def node(name: str, labels: dict[str, str] | None = None, **resources: float) -> dict[str, Any]:
    return {"NodeManagerHostname": name, "Resources": resources, "Labels": labels or {}}


HEAD, WORKER = node("head", CPU=4), node("worker", CPU=16, GPU=2)


def test_a_trial_waits_for_a_gpu_when_the_last_node_with_gpus_is_lost() -> None:
    """It must not go on without one, nor with another number of threads."""
    sizes = Sizes([HEAD, WORKER])
    assert sizes.of(Resources()) == (Resources(gpus=1.0, cpus=8.0), 2)
    assert sizes.use([HEAD])
    assert sizes.of(Resources()) == (Resources(gpus=1.0, cpus=8.0), 0)
    assert sizes.use([HEAD, WORKER, WORKER])
    assert sizes.of(Resources()) == (Resources(gpus=1.0, cpus=8.0), 4)


def test_trials_that_run_without_a_gpu_go_on_so_when_a_gpu_joins() -> None:
    sizes = Sizes([HEAD])
    assert sizes.of(Resources())[0].gpus == 0.0
    sizes.use([HEAD, WORKER])
    assert sizes.of(Resources())[0].gpus == 0.0


def test_another_label_is_another_node() -> None:
    south, north = (node("a", {"zone": zone}, CPU=4) for zone in ("south", "north"))
    sizes = Sizes([south])
    wanted = Resources(gpus=0.0, cpus=1.0, labels={"zone": "south"})
    assert sizes.of(wanted)[1] == 4
    assert not sizes.use([south])
    assert sizes.use([north])
    assert sizes.of(wanted)[1] == 0


def test_what_waits_for_a_node_is_told_once_and_that_it_is_back_too() -> None:
    sizes = Sizes([HEAD, WORKER])
    waiting = [Resources(gpus=1.0, cpus=8.0)] * 3
    assert sizes.changes_of_room(waiting) == []
    sizes.use([HEAD])
    (told,) = sizes.changes_of_room(waiting)
    assert told.startswith("trials wait: they ask for GPU 1, CPU 8, and no node has that now. Nodes: head (4 cpus, 0 g")
    assert sizes.changes_of_room(waiting) == []
    sizes.use([HEAD, WORKER])
    (told,) = sizes.changes_of_room(waiting)
    assert told.startswith("there is a node again that has GPU 1, CPU 8")
    assert sizes.changes_of_room(waiting) == []
    sizes.use([HEAD])
    assert len(sizes.changes_of_room(waiting)) == 1
