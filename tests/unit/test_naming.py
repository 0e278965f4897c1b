"""Labels of trials, numbers and durations for people."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import naming


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (0.001, "0.001"),
        (1e-05, "1e-05"),
        (1.0, "1"),
        (3, "3"),
        (True, "true"),
        (None, "null"),
        ("adam", "adam"),
        ([0.9, [True, None]], "[0.9,[true,null]]"),
        (float("nan"), "nan"),
        ("two\nlines\x1b[31m", "two\\nlines\\x1b[31m"),
    ],
)
def test_values_as_text(item: Any, text: str) -> None:
    assert naming.value(item) == text


@pytest.mark.parametrize(
    ("keys", "short"),
    [
        (["optimizer.lr", "model"], ["lr", "model"]),
        (["optimizer.lr", "lr"], ["optimizer.lr", "lr"]),
        (["a.x.lr", "b.x.lr"], ["a.x.lr", "b.x.lr"]),
        (["a.x.lr", "b.y.lr"], ["x.lr", "y.lr"]),
        (["db/engine", "+experiment", "/data.size"], ["db/engine", "experiment", "size"]),
        (["+key", "key"], ["+key", "key"]),
        ([], []),
    ],
)
def test_short_keys_are_unique_and_as_short_as_possible(keys: list[str], short: list[str]) -> None:
    assert naming.short_keys(keys) == dict(zip(keys, short, strict=True))


@given(st.lists(st.from_regex(r"[+/]?[ab](\.[abc]){0,3}", fullmatch=True), unique=True, max_size=6))
def test_short_keys_of_any_keys_are_unique(keys: list[str]) -> None:
    short = naming.short_keys(keys)
    assert len(set(short.values())) == len(keys)


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        ({"model": "lstm", "optimizer": "adam", "optimizer.lr": 0.01}, "lstm adam lr=0.01"),
        ({"first": "same", "second": "same"}, "first=same second=same"),
        ({"path": "a/b", "empty": "", "flag": True}, "path=a/b empty= flag=true"),
        ({}, "(no axes)"),
    ],
)
def test_labels_keep_the_order_of_the_axes(overrides: dict[str, Any], label: str) -> None:
    assert naming.label(overrides) == label


def test_metrics_have_four_significant_digits() -> None:
    assert [naming.metric(number) for number in (None, 0.123456, 12345678.0, float("inf"))] == [
        "–",
        "0.1235",
        "1.235e+07",
        "inf",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (0.44, "0.4s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.7, "1m 00s"),
        (200, "3m 20s"),
        (3599.9, "1h 00m"),
        (7500, "2h 05m"),
        (48 * 3600, "2d 0h"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert naming.duration(seconds) == text
