"""The W&B server is away for a whole sweep: the sweep does not care, and `sync` sends everything afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.bed import Bed, Series, delivered
from tests.ray.support import TRACKED
from tests.wandb_server import Outage, Server

HOW: dict[Outage, str] = {
    "drop": "cuts connections",
    "503": "answers 503",
    "401": "answers 401",
    "429": "answers 429",
    "hang": "accepts connections, and never answers",
}


def _cases() -> list[Any]:
    held = "✱ the sweep ends as ever and names `orchestrate sync`, which sends each step once"
    return [
        pytest.param(
            kind, marks=(pytest.mark.fault("wandb", f"the server {how}", "local: for the whole sweep", held), *mark)
        )
        for (kind, how), mark in zip(HOW.items(), [(), *[(pytest.mark.campaign,)] * 4], strict=True)
    ]


@pytest.mark.parametrize("kind", _cases())
def test_away_for_a_whole_sweep(bed: Bed, server: Server, uninjured: Callable[..., Series], kind: Outage) -> None:
    expected = uninjured("x=range(4)")
    bed.tracked(server)
    server.outage = kind
    assert "orchestrate sync work" in bed.sweep("x=range(4)", TRACKED)
    assert not server.runs
    server.outage = None
    assert "4 runs sent" in bed.run("sync")
    bed.whole(expected)
    delivered(server, expected)
