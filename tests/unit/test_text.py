"""Text from outside: shortened, made valid, and folded as a terminal would."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.text import VisibleLines, safe, shortened


def test_text_that_is_no_unicode_is_written_out() -> None:
    assert safe(os.fsdecode(b"caf\xe9.png")) == "caf\\udce9.png"
    assert safe("café 😀") == "café 😀"


def test_a_long_text_keeps_both_ends() -> None:
    assert shortened("a" * 10, 10) == "a" * 10
    assert shortened("begin" + "x" * 100 + "end..", 10) == "begin\n  ... 100 characters left out ...\nend.."


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("a\nb\n", "a\nb\n"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("\r 1%\r 2%\r 3%\ndone\n", " 3%\ndone\n"),
        (" 1%\r 2%\r 3%\r\n", " 3%\n"),
        ("first\n1%\r2%", "first\n2%"),
        ("1%\r2%\r", "2%\r"),
        ("\n\n", "\n\n"),
    ],
)
def test_what_was_overwritten_is_left_out(written: str, seen: str) -> None:
    for size in (1, 2, 3, 100):
        lines, data = VisibleLines(), written.encode()
        found = b"".join(lines.add(data[at : at + size]) for at in range(0, len(data), size))
        assert (found + lines.rest()).decode() == seen, size


PIECES = st.lists(st.tuples(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n", b"x" * 70_000]), st.booleans()))


@given(PIECES)
def test_passed_on_early_it_looks_the_same_in_the_end(pieces: list[tuple[bytes, bool]]) -> None:
    """Whenever the last line is passed on before it is complete, a second pass gives what one pass gives."""
    at_once, early, again = VisibleLines(), VisibleLines(), VisibleLines()
    whole = at_once.add(b"".join(piece for piece, _ in pieces)) + at_once.rest()
    found = b"".join(early.add(piece) + (early.rest() if now else b"") for piece, now in pieces) + early.rest()
    twice = again.add(found) + again.rest()
    assert whole.rstrip(b"\r").count(b"\n") == twice.count(b"\n")
    if b"x" not in whole:
        assert twice.rstrip(b"\r") == whole.rstrip(b"\r")
