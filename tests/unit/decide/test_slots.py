"""How many trials fit on a node."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.decide import slots
from orchestrator.model.sweep import Resources


def node(labels: dict[str, str] | None = None, **resources: float) -> dict[str, object]:
    return {"NodeManagerHostname": "here", "Resources": resources, "Labels": labels or {}}


@pytest.mark.parametrize(
    ("wanted", "available", "count"),
    [
        (Resources(1.0, 1.0), {"GPU": 4, "CPU": 8}, 4),
        (Resources(1.0, 4.0), {"GPU": 4, "CPU": 8}, 2),
        (Resources(3.0, 1.0), {"GPU": 4, "CPU": 8}, 1),
        (Resources(0.5, 1.0), {"GPU": 2, "CPU": 8}, 4),
        (Resources(0.4, 1.0), {"GPU": 2, "CPU": 8}, 4),  # two on each GPU: a fraction is a part of one GPU
        (Resources(0.1, 0.5), {"GPU": 1, "CPU": 8}, 10),
        (Resources(0.0, 1.0), {"CPU": 3}, 3),
        (Resources(1.0, 1.0), {"CPU": 3}, 0),
        (Resources(0.0, 1.0, memory=2**30), {"CPU": 8, "memory": 3 * 2**30}, 3),
        (Resources(0.0, 1.0, custom={"licence": 1}), {"CPU": 8, "licence": 2}, 2),
        (Resources(0.0, 1.0, custom={"licence": 1}), {"CPU": 8}, 0),
    ],
)
def test_how_many_trials_fit(wanted: Resources, available: dict[str, float], count: int) -> None:
    assert slots.fits(node(**available), wanted) == count


@pytest.mark.parametrize(
    ("wanted", "fits"), [("north", 1), ("!north", 0), ("in(south, north)", 1), ("!in(south)", 1), ("south", 0)]
)
def test_label_selectors(wanted: str, fits: int) -> None:
    assert slots.fits(node({"zone": "north"}, CPU=1), Resources(0.0, 1.0, labels={"zone": wanted})) == fits


@pytest.mark.parametrize(
    ("nodes", "gpus", "cpus"),
    [
        ([{"CPU": 32, "GPU": 4}], 1.0, 8.0),
        ([{"CPU": 32, "GPU": 4}], 2.0, 16.0),
        ([{"CPU": 32, "GPU": 4}], 0.5, 4.0),
        ([{"CPU": 32, "GPU": 4}, {"CPU": 8, "GPU": 4}, {"CPU": 1}], 1.0, 2.0),
        ([{"CPU": 2, "GPU": 4}], 1.0, 0.5),
        ([{"CPU": 8}], 0.0, 1.0),
    ],
)
def test_each_gpu_slot_gets_an_even_share_of_the_cpus(nodes: list[dict[str, float]], gpus: float, cpus: float) -> None:
    assert slots.cpus_per_slot(nodes, gpus) == cpus


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (Resources(1.0, 2.0), Resources(1.0, 2.0)),
        (Resources(1.0, 2.0, alone="node"), Resources(1.0, 8.0, alone="node")),  # not 32: that node has no GPU
        (Resources(0.0, 2.0, alone="node"), Resources(0.0, 32.0, alone="node")),
        (Resources(0.5, 2.0, alone="gpu"), Resources(1.0, 2.0, alone="gpu")),
        (Resources(0.0, 2.0, alone="gpu"), Resources(0.0, 2.0, alone="gpu")),
    ],
)
def test_a_trial_that_runs_alone_gets_the_node_or_the_gpu(wanted: Resources, given: Resources) -> None:
    nodes = [node(CPU=8, GPU=2), node(CPU=4, GPU=2), node(CPU=32)]
    assert slots.alone(nodes, wanted) == given
    assert slots.alone(nodes, given) == given, "applying it twice changes nothing"


def test_description_of_a_node() -> None:
    text = slots.described(node(CPU=8, GPU=0.5, memory=2 * 2**30, licence=1, object_store_memory=5))
    assert text == "here (8 cpus, 0.5 gpus, 2 GiB, licence 1)"


@pytest.mark.parametrize(
    ("written", "first"),
    [
        ({}, "0"),
        ({"gpus": 2}, "01"),
        ({"gpus": 0.5}, "0"),
        ({"gpus": 0}, ""),
        ({"gpus": 4}, "012"),
        ({"gpus": "${n}"}, ""),
    ],
)
def test_the_gpus_that_are_visible_while_the_trainer_is_imported(written: dict[str, Any], first: str) -> None:
    assert list(slots.first_gpus(["0", "1", "2"], written)) == list(first)
    assert not slots.first_gpus([], written)
