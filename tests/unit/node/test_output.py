"""What is kept of an attempt's output, and when it is passed on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from orchestrator.node.watch.output import Output


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def make() -> Iterator[Callable[..., Output]]:
    made: list[Output] = []

    def new(cap: int = 100, now: Clock | None = None) -> Output:
        made.append(Output(cap, now or Clock()))
        return made[-1]

    yield new
    for each in made:
        each.close()


def write(output: Output, text: str) -> bytes:
    os.write(output.write_fd, text.encode())
    output.read()
    return output.take()


def test_a_line_is_passed_on_before_it_is_complete(make: Callable[..., Output]) -> None:
    output = make()
    assert [write(output, text) for text in ("Password", ": ", "x\n")] == [b"Password", b": ", b"x\n"]
    assert output.finish() == b""


def test_a_progress_bar_is_shown_now_and_then(make: Callable[..., Output]) -> None:
    clock = Clock()
    output = make(now=clock)
    assert [write(output, f"\r{number}%") for number in range(3)] == [b""] * 3
    clock.now = 10.0
    assert write(output, "\r3%") == b"3%"
    assert write(output, "\r4%") == b""
    assert output.finish() == b"\r4%"


@pytest.mark.parametrize("length", [99, 100])
def test_up_to_the_cap_nothing_is_left_out(make: Callable[..., Output], length: int) -> None:
    output = make(cap=100)
    text = "".join(f"{number:9}\n" for number in range(10))[:length]
    found = (write(output, text) + output.finish()).decode()
    assert found.replace("[orchestrate: of what follows, the last 50 bytes come when the attempt ends]\n", "") == text


def test_a_single_long_line_keeps_both_ends(make: Callable[..., Output]) -> None:
    output = make(cap=100)
    found = write(output, "a" * 1000 + "b" * 1000) + output.finish()
    first, _, gap, last = found.decode().split("\n")
    assert (first, last) == ("a" * 50, "b" * 50)
    assert gap == "[orchestrate: 1900 bytes of output are left out here]"
