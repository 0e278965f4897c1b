"""Which known name a misspelt one was meant to be."""

from __future__ import annotations

import pytest

from orchestrator.errors import nearest


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("statsu", ["status", "stop"], "status"),
        ("SDG", ["SGD", "adam"], "SGD"),
        ("sgd", ["adam", "SGD"], "SGD"),
        ("retrys", ["retries", "repeats"], "retries"),
        ("valid/ac", ["valid/loss", "valid/acc"], "valid/acc"),
        ("lr", ["optimizer.name", "optimizer.lr"], "optimizer.lr"),
        ("accuracy", ["valid/accuracy"], "valid/accuracy"),
        ("clean", ["plan", "logs"], None),
        ("best", ["stop", "status"], None),
        ("program", ["grace", "trainer"], None),
        ("x", ["y"], None),
        ("same", ["same"], None),
        ("same", ["same", "sane"], "sane"),
        ("", ["a"], None),
        ("a", [], None),
    ],
)
def test_only_what_is_close_is_suggested(name: str, known: list[str], found: str | None) -> None:
    assert nearest(name, known) == found
