"""Which nodes are quarantined, and how trials avoid them."""

from __future__ import annotations

import pytest

from orchestrator.decide import slots
from orchestrator.decide.quarantine import NODE_LABEL, Quarantine, hardware_fault
from orchestrator.model.events import Outcome, Started
from orchestrator.model.sweep import Resources, State
from tests.unit.manifests import FAILURE, LOST, SUCCESS

SEGV = Outcome(State.FAILED, "signal", "killed by SIGSEGV")
ECC = Outcome(
    State.FAILED, "exception", "RuntimeError: CUDA error: uncorrectable ECC error encountered", place="t.py:1"
)


def on(node: str) -> Started:
    return Started(1.0, f"host-{node}", node, 7, (), (), 1, "fork")


def after(*ends: tuple[str, Outcome]) -> Quarantine:
    """The quarantine after different trials have ended like this on these nodes."""
    found = Quarantine()
    for number, (node, outcome) in enumerate(ends):
        found.record(str(number), on(node), outcome)
    return found


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (LOST, "a lost worker"),
        (SEGV, "SIGSEGV"),
        (ECC, "uncorrectable ECC"),
        (FAILURE, None),
        (Outcome(State.FAILED, "signal", "killed by SIGKILL"), None),
        (Outcome(State.LOST, "lost_node", "gone"), None),
        (Outcome(State.FAILED, "cuda_oom", "OutOfMemoryError: CUDA out of memory"), None),
    ],
)
def test_which_outcomes_point_to_the_hardware(outcome: Outcome, fault: str | None) -> None:
    assert hardware_fault(outcome) == fault


@pytest.mark.parametrize("outcome", [LOST, SEGV, ECC])
def test_a_node_is_quarantined_after_three_faults(outcome: Outcome) -> None:
    found = after(("good", SUCCESS), ("bad", outcome), ("good", SUCCESS), ("bad", outcome))
    assert found.nodes == {}
    message = found.record("x", on("bad"), outcome)
    assert message is not None
    assert message.startswith("host-bad gets no more trials: 3 in a row failed there, the last one with ")
    assert found.nodes == {"bad": "host-bad"}
    assert found.record("y", on("bad"), outcome) is None, "the message is given once"


def test_nodes_that_are_not_quarantined() -> None:
    bad = [("bad", SEGV)] * 3
    assert after(*bad).nodes == {}, "nothing succeeds elsewhere"
    assert after(("bad", SUCCESS), *bad).nodes == {}
    assert after(("good", SUCCESS), ("bad", SEGV), ("bad", SEGV), ("bad", SUCCESS), ("bad", SEGV)).nodes == {}
    assert after(("good", SEGV), ("good", SUCCESS), *bad).nodes == {}, "the trainer's code causes this signal"
    assert after(("good", LOST), ("good", SUCCESS), *[("bad", LOST)] * 3).nodes, "code loses no workers"
    assert after(("good", SUCCESS), *[("bad", FAILURE)] * 9).nodes == {}
    one = after(("good", SUCCESS))
    assert [one.record("x", on("bad"), LOST) for _ in range(5)] == [None] * 5, "one trial, retried, counts once"
    assert one.record("x", None, LOST) is None
    assert one.record("x", Started(1.0, "alone", "", 7, (), (), 1, "fork"), LOST) is None


def test_trials_avoid_quarantined_nodes() -> None:
    wanted = Resources(gpus=1, cpus=1, labels={"zone": "north"})
    assert Quarantine().avoid(wanted) is wanted
    placed = after(("good", SUCCESS), *[("bad", LOST)] * 3).avoid(wanted)
    assert placed.labels == {NODE_LABEL: "!in(bad)", "zone": "north"}
    nodes = [
        {"Labels": {NODE_LABEL: name, "zone": "north"}, "Resources": {"GPU": 2, "CPU": 4}} for name in ("good", "bad")
    ]
    assert [slots.fits(node, placed) for node in nodes] == [2, 0]
