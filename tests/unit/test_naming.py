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


LSTM = {"embeddings": "fast_text", "model": "lstm", "optimizer": "SGD", "lr": 0.1}
TRIALS = [LSTM, {**LSTM, "model": "bi_lstm_bidirectionnal"}, {**LSTM, "model": "lstm_bidirectionnal", "lr": 1.0}]


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (80, ["fast_text lstm SGD lr=0.1", "fast_text bi_lstm_bidirectionnal SGD lr=0.1"]),
        (36, ["… lstm SGD lr=0.1", "… bi_lstm_bidirectionnal SGD lr=0.1"]),
        (31, ["… lstm lr=0.1", "… bi_lstm_bidirectionnal lr=0.1"]),
        (20, ["… lstm lr=0.1", "… bi_ls…onnal lr=0.1"]),
        (1, ["… lstm 0.1", "… bi…l 0.1"]),
    ],
)
def test_labels_leave_out_what_is_common_before_what_differs(width: int, expected: list[str]) -> None:
    found = naming.labels(TRIALS, width)
    assert found[:2] == expected
    assert len(set(found)) == 3
    assert max(map(len, found)) <= width or width == 1


def test_labels_of_one_trial_and_of_none() -> None:
    assert naming.labels([], 10) == []
    assert naming.labels([{}], 3) == ["(no axes)"]
    assert naming.labels([LSTM], 80) == [naming.label(LSTM)]
    assert len(naming.labels([LSTM], 22)[0]) <= 22


def test_counts_have_a_plural() -> None:
    assert [naming.count(number, "trial") for number in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]


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
