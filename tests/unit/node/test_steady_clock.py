"""Times that are subtracted from one another."""

from __future__ import annotations

import time

from orchestrator.node.shared.steady_clock import steady


def test_a_clock_that_is_set_back_makes_nothing_shorter() -> None:
    wall, passed = [1000.0], [50.0]
    now = steady(lambda: wall[0], lambda: passed[0])
    assert now() == 1000.0
    wall[0], passed[0] = 400.0, 57.0
    assert now() == 1007.0


def test_it_is_the_time_of_day() -> None:
    before = time.time()
    assert before - 60 < steady()() < before + 60
