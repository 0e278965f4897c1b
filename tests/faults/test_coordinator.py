"""The coordinator is killed, asked to end, started twice: the same command goes on, and no result tells."""

from __future__ import annotations

import random
import re
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.bed import Bed, Series, delivered
from tests.ray.support import PATIENCE, TRACKED, until
from tests.wandb_server import Server

DEAD = -signal.SIGKILL
KILLS = 10  # in a round of the campaign
WHOLE = "✱ one run a trial in W&B, each step once"
campaign_only = pytest.mark.campaign


def rounds(count: int) -> Any:
    """The first of them is part of `make test`."""
    marks = [() if number == 0 else campaign_only for number in range(count)]
    return pytest.mark.parametrize("number", [pytest.param(n, marks=mark) for n, mark in enumerate(marks)])


class Ledger:
    """What was acknowledged stays: what the coordinator printed is in the manifest, what was there remains."""

    def __init__(self, bed: Bed) -> None:
        self.bed, self.finished = bed, set[tuple[str, int]]()

    def check(self, printed: str) -> None:
        now = self.bed.succeeded()
        assert self.finished <= now
        assert len(re.findall(r"succeeded  ", printed)) <= len(now - self.finished)
        self.finished = now


def resume(bed: Bed, ledger: Ledger, server: Server, expected: Series, words: tuple[str, ...]) -> None:
    """Nothing happens any more: the same command ends the sweep, and all holds.

    A tracker of a coordinator that was killed may be reading yet at that end, and keep the manifest's log from being
    folded in: the same command once more finds nothing to run, and does that.
    """
    bed.sweep(*words)
    until(lambda: not bed.left())
    assert " succeeded, 0 to run" in bed.sweep(*words)
    bed.run("sync")  # a slow machine gives up waiting at the end, and names this
    ledger.check("")
    bed.whole(expected)
    delivered(server, expected)


@pytest.mark.fault("coordinator", "`kill -9`", "local: at random instants, from its start to its end", WHOLE)
@rounds(11)
def test_killed_at_any_instant(
    bed: Bed, server: Server, uninjured: Callable[..., Series], campaign: bool, record_property: Any, number: int
) -> None:
    words = (f"x=range({160 if campaign else 16})", TRACKED)
    expected, draw, ledger = uninjured(*words[:1]), random.Random(number), Ledger(bed)
    bed.tracked(server)
    landed = 0
    while landed < (KILLS if campaign else 3):
        process = bed.start_sweep(*words)
        timer = threading.Timer(draw.uniform(0.0, 3.0), process.kill)
        timer.start()
        out, err = process.communicate(timeout=PATIENCE)
        timer.cancel()
        assert process.returncode in (0, DEAD), out + err
        ledger.check(out)
        landed += 1
        if process.returncode == 0:
            landed -= 1
            break  # it was done before: the rest of this round's kills have nothing to hit
    record_property("times", landed)
    resume(bed, ledger, server, expected, words)


@pytest.mark.fault(
    "coordinator",
    "`kill -9` in the middle of a write",
    "local: by itself, right before a COMMIT, or at any one of its statements, writes and starts of processes",
    WHOLE,
)
@rounds(4)
def test_killed_inside_a_commit(
    bed: Bed, server: Server, uninjured: Callable[..., Series], campaign: bool, record_property: Any, number: int
) -> None:
    words = ("x=range(16)", TRACKED)
    expected, draw, ledger = uninjured(*words[:1]), random.Random(number), Ledger(bed)
    bed.tracked(server)
    landed = 0
    for kill in range(KILLS if campaign else 2):
        bed.env["DIE_AT"] = f"COMMIT {draw.randint(1, 12)}" if kill % 2 else f"* {draw.randint(1, 400)}"
        process = bed.start_sweep(*words)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, DEAD), out + err
        ledger.check(out)
        landed += process.returncode == DEAD
    del bed.env["DIE_AT"]
    record_property("times", landed)
    resume(bed, ledger, server, expected, words)


@pytest.mark.fault(
    "coordinator",
    "SIGINT, SIGTERM, SIGHUP, SIGUSR1",
    "local: sent while two trials run",
    f"{WHOLE}; exit code 130",
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_asked_to_end(bed: Bed, server: Server, uninjured: Callable[..., Series], number: signal.Signals) -> None:
    words = ("x=range(4)", TRACKED, "do=hold")
    expected = uninjured("x=range(4)")
    bed.tracked(server)
    process = bed.start_sweep(*words)
    bed.until_waiting(2, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, out + err
    bed.go()
    resume(bed, Ledger(bed), server, expected, words)


@pytest.mark.fault(
    "coordinator", "two on one sweep", "local: the same command again while it runs", "✱ the second is told"
)
def test_two_on_one_sweep(bed: Bed, uninjured: Callable[..., Series]) -> None:
    expected = uninjured("x=range(4)")
    process = bed.start_sweep("x=range(4)", "do=hold")
    bed.until_waiting(2, process)
    assert f"another coordinator runs this sweep (pid {process.pid} on" in bed.sweep("x=range(4)", code=2)
    bed.go()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    bed.whole(expected)
