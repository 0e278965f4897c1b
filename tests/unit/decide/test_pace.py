"""How often attempts report."""

from __future__ import annotations

import pytest

from orchestrator.decide import pace


@pytest.mark.parametrize(("live", "seconds"), [(0, 0.25), (1, 0.25), (25, 0.25), (256, 2.56), (1000, 10.0)])
def test_all_together_send_a_hundred_messages_a_second_at_most(live: int, seconds: float) -> None:
    assert pace.interval(pace.LEAST, live) == seconds
    assert live / seconds <= pace.MESSAGES
