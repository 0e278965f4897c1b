"""Ctrl-C while an executor starts."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from orchestrator.executors import interrupts


def start(steps: list[str], presses: int, error: Exception | None = None) -> None:
    with interrupts.held("ends soon"):
        for _ in range(presses):
            os.kill(os.getpid(), signal.SIGINT)
        steps.append("went on")
        if error is not None:
            raise error


def test_an_interrupt_is_told_at_once_and_heard_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    before, steps = signal.getsignal(signal.SIGINT), list[str]()
    with pytest.raises(KeyboardInterrupt):
        start(steps, 1)
    assert steps == ["went on"]
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().err == "ends soon\n"


def test_the_second_one_is_heard_at_once() -> None:
    before, steps = signal.getsignal(signal.SIGINT), list[str]()
    with pytest.raises(KeyboardInterrupt):
        start(steps, 2)
    assert steps == []
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_counts_for_more_and_no_interrupt_is_made_up() -> None:
    with pytest.raises(ValueError, match="first"):
        start([], 1, ValueError("first"))
    start([], 0)


def test_in_another_thread_it_does_nothing() -> None:
    steps: list[str] = []
    thread = threading.Thread(target=start, args=(steps, 0))
    thread.start()
    thread.join()
    assert steps == ["went on"]
