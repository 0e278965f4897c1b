"""Nodes that are left alone."""

from __future__ import annotations

import pytest

from orchestrator.decide import slots
from orchestrator.decide.quarantine import NODE, Quarantine, hardware
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
    """Trials that ended so, each another one, on these nodes."""
    found = Quarantine()
    for number, (node, outcome) in enumerate(ends):
        found.take(str(number), on(node), outcome)
    return found


@pytest.mark.parametrize(
    ("outcome", "kind"),
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
def test_what_hardware_does(outcome: Outcome, kind: str | None) -> None:
    assert hardware(outcome) == kind


@pytest.mark.parametrize("outcome", [LOST, SEGV, ECC])
def test_a_bad_node_among_good_ones(outcome: Outcome) -> None:
    found = after(("good", SUCCESS), ("bad", outcome), ("good", SUCCESS), ("bad", outcome))
    assert found.left_out == {}
    said = found.take("x", on("bad"), outcome)
    assert said is not None
    assert said.startswith("host-bad is left out from now on: 3 trials in a row failed there, the last by ")
    assert found.left_out == {"bad": "host-bad"}
    assert found.take("y", on("bad"), outcome) is None, "said once"


def test_who_is_not_to_blame() -> None:
    bad = [("bad", SEGV)] * 3
    assert after(*bad).left_out == {}, "nothing succeeds elsewhere"
    assert after(("bad", SUCCESS), *bad).left_out == {}
    assert after(("good", SUCCESS), ("bad", SEGV), ("bad", SEGV), ("bad", SUCCESS), ("bad", SEGV)).left_out == {}
    assert after(("good", SEGV), ("good", SUCCESS), *bad).left_out == {}, "it is the code's own"
    assert after(("good", LOST), ("good", SUCCESS), *[("bad", LOST)] * 3).left_out, "no code loses workers"
    assert after(("good", SUCCESS), *[("bad", FAILURE)] * 9).left_out == {}
    one = after(("good", SUCCESS))
    assert [one.take("x", on("bad"), LOST) for _ in range(5)] == [None] * 5, "one trial, retried"
    assert one.take("x", None, LOST) is None
    assert one.take("x", Started(1.0, "alone", "", 7, (), (), 1, "fork"), LOST) is None


def test_others_are_placed_elsewhere() -> None:
    wanted = Resources(gpus=1, cpus=1, labels={"zone": "north"})
    assert Quarantine().elsewhere(wanted) is wanted
    placed = after(("good", SUCCESS), *[("bad", LOST)] * 3).elsewhere(wanted)
    assert placed.labels == {NODE: "!in(bad)", "zone": "north"}
    nodes = [{"Labels": {NODE: name, "zone": "north"}, "Resources": {"GPU": 2, "CPU": 4}} for name in ("good", "bad")]
    assert [slots.fits(node, placed) for node in nodes] == [2, 0]
