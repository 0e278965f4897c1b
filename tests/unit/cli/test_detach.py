"""A sweep in the background: what it takes from the process that started it, and what it passes on."""

from __future__ import annotations

import os

import pytest

from orchestrator.cli.sweep import DETACHED, detached_from


def test_nothing_that_is_started_there_learns_of_the_detachment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert detached_from() is None
    ours, theirs = os.pipe()
    os.set_inheritable(theirs, True)
    monkeypatch.setenv(DETACHED, str(theirs))
    assert detached_from() == theirs
    assert DETACHED not in os.environ
    assert not os.get_inheritable(theirs)
    os.close(ours)
    os.close(theirs)
