"""What a series has reached: last values, and all metrics at the best step."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.decide.standing import Standing, best_step, better, metrics_at
from orchestrator.model.sweep import Objective

LOWEST = Objective("loss", "min", "best")
VALUES = st.one_of(st.sampled_from(["NaN", "Infinity", "-Infinity"]), st.integers(-2, 2).map(float))
GROWING = st.lists(  # as most trainers report
    st.tuples(st.integers(1, 3), VALUES, VALUES), max_size=6
).map(lambda found: [(sum(row[0] for row in found[: at + 1]), {"loss": found[at][1], "acc": found[at][2]})
                     for at in range(len(found))])  # fmt: skip
ROW = st.tuples(st.integers(0, 6), st.dictionaries(st.sampled_from(["loss", "acc", "time"]), VALUES, max_size=3))


def test_better_respects_the_mode_and_nan() -> None:
    lowest, highest = Objective("loss", "min"), Objective("loss", "max")
    assert better(lowest, 1.0, None)
    assert better(lowest, 1.0, 2.0)
    assert better(highest, 2.0, 1.0)
    assert not better(lowest, 1.0, 1.0)
    assert not any(better(way, math.nan, old) for way, old in itertools.product((lowest, highest), (None, 1.0)))


@pytest.mark.parametrize(
    ("rows", "step", "metrics"),
    [
        ([(0, {"loss": 2.0, "acc": 0.1}), (1, {"loss": 1.0, "acc": 0.3}), (2, {"loss": 1.5, "acc": 0.9})], 1,
         {"loss": 1.0, "acc": 0.3}),
        ([(0, {"acc": 0.1}), (1, {"loss": 1.0}), (2, {"acc": 0.9})], 1, {"acc": 0.1, "loss": 1.0}),
        ([(0, {"loss": 1.0}), (0, {"acc": 0.5}), (1, {"loss": 2.0})], 0, {"loss": 1.0, "acc": 0.5}),
        ([(0, {"loss": 1.0}), (1, {"loss": 1.0})], 0, {"loss": 1.0}),
        ([(0, {"loss": 1.0}), (1, {"loss": 2.0}), (0, {"loss": 3.0})], 1, {"loss": 2.0}),
        ([(0, {"acc": 0.1}), (1, {"acc": 0.2}), (0, {"loss": 1.0}), (1, {"loss": 2.0})], 0, {"acc": 0.1, "loss": 1.0}),
        ([(0, {"loss": "NaN"})], None, None),
        ([], None, None),
    ],
)  # fmt: skip
def test_metrics_at_the_best_step(
    rows: list[tuple[int, dict[str, Any]]], step: int | None, metrics: dict[str, Any] | None
) -> None:
    standing = Standing(LOWEST, rows)
    assert (standing.best_step, standing.best) == (step, metrics)
    assert standing.shown == (standing.last if metrics is None else metrics)


@given(st.lists(st.lists(ROW, max_size=5) | GROWING, max_size=5), st.sampled_from(["min", "max"]))
def test_rows_one_by_one_are_the_same_as_the_whole_series(
    batches: list[list[tuple[int, dict[str, Any]]]], mode: Any
) -> None:
    objective = Objective("loss", mode, "best")
    standing, seen = Standing(objective), []
    for batch in batches:
        standing.take_all([step for step, _ in batch], [row for _, row in batch])
        seen += batch
        if standing.unsure is not None:
            standing.settle([row for row in seen if row[0] <= standing.unsure])
        found = best_step(objective, seen)
        assert standing.best_step == found
        assert standing.best == (None if found is None else metrics_at(found, seen)[0])
        assert standing.objective == (None if standing.best is None else standing.best["loss"])
        assert standing.last == {name: value for _, row in seen for name, value in row.items()}


def test_a_series_in_order_is_never_read_again() -> None:
    standing = Standing(LOWEST)
    for step, loss in enumerate([3.0, 1.0, 2.0, 0.5, "NaN"]):
        standing.take(step, {"loss": loss, "acc": step})
        standing.take(step, {"late": step})
        assert standing.unsure is None
    assert standing.best == {"loss": 0.5, "acc": 3, "late": 3}
