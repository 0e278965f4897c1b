"""The pure part of tracking: which runs a trial's attempts make, and which of their steps are complete."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.rows import AttemptRow, ReportRow
from orchestrator.model.sweep import State
from orchestrator.tracking.goals import Steps, goals, run_id


def _attempt(number: int, state: State, lineage: int = 1, retry: bool = False, **other: Any) -> AttemptRow:
    text = dict.fromkeys(("cause", "message", "traceback", "place", "node", "method", "code"), "")
    none = dict.fromkeys(("ended", "entered", "returned", "pid", "threads", "restored", "objective", "best_step"))
    row = AttemptRow(
        trial_id="t", purpose="trial", plan=1, parent=None, resources=None, ignored=None, deterministic=None,
        attempt=number, state=state, lineage=lineage, retry=retry, created=0, started=1, gpus=(),
        gpu_uuids=(), metrics={}, best_metrics={}, changed=number, **text, **none,
    )  # fmt: skip
    return replace(row, **other)


def _row(id: int, step: int, attempt: int = 1, **metrics: float) -> ReportRow:
    return ReportRow(id, "t", attempt, step, float(id), metrics or {"x": float(id)})


@pytest.mark.parametrize(
    ("attempts", "held", "expected"),  # expected: (lineage, over, superseded, exit code) of each run
    [
        ([_attempt(1, State.LAUNCHING, started=None)], True, []),
        ([_attempt(1, State.RUNNING)], True, [(1, False, False, 255)]),
        ([_attempt(1, State.RUNNING)], False, [(1, True, False, 255)]),
        ([_attempt(1, State.SUCCEEDED)], True, [(1, True, False, 0)]),
        ([_attempt(1, State.STOPPED)], True, [(1, True, False, 0)]),
        ([_attempt(1, State.CANCELLED)], True, [(1, True, False, 255)]),
        ([_attempt(1, State.FAILED, started=None)], True, [(1, True, False, 1)]),
        ([_attempt(1, State.LOST, retry=True)], True, [(1, False, False, 255)]),
        ([_attempt(1, State.LOST, retry=True, started=None)], False, []),
        (
            [_attempt(1, State.LOST, retry=True), _attempt(2, State.RUNNING, lineage=2)],
            True,
            [(1, True, True, 1), (2, False, False, 255)],
        ),
        ([_attempt(1, State.LOST, retry=True), _attempt(2, State.FAILED)], True, [(1, True, False, 1)]),
        (
            [_attempt(1, State.SUCCEEDED), _attempt(2, State.LAUNCHING, lineage=2, started=None)],
            True,
            [(1, True, True, 0)],
        ),
    ],
)
def test_the_runs_of_a_trial(
    attempts: list[AttemptRow], held: bool, expected: list[tuple[int, bool, bool, int]]
) -> None:
    found = goals(attempts, held)
    assert [(goal.lineage, goal.over, goal.superseded, goal.exit_code) for goal in found] == expected


def test_a_run_has_one_id_in_the_world() -> None:
    assert run_id("sweep", "trial", 1) == run_id("sweep", "trial", 1)
    assert len({run_id(*key) for key in [("a", "b", 1), ("a", "b", 2), ("a", "c", 1), ("b", "b", 1)]}) == 4


@given(steps=st.lists(st.integers(0, 12)), first=st.integers(0, 5), cut=st.integers(0, 40))
def test_a_step_is_given_once_merged_and_in_order(steps: list[int], first: int, cut: int) -> None:
    found = Steps(first)
    given_away = [each for number, step in enumerate(steps[:cut], 1) for each in found.add(_row(number, step))]
    given_away += found.flush()
    numbers = [step for step, _, _ in given_away]
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= {step for step in steps[:cut] if step >= first}
    if steps[:cut] == sorted(steps[:cut]):
        assert set(numbers) == {step for step in steps[:cut] if step >= first}


def test_what_comes_for_a_step_that_was_given_away_is_late() -> None:
    steps = Steps(0)
    for number, step in enumerate([0, 1, 2, 2]):
        list(steps.add(_row(number, step)))
    assert steps.late == set(), "rows of one step belong together"
    for number, step in enumerate([0, 1, 2], 10):
        list(steps.add(_row(number, step)))
    assert steps.late == {0, 1}
    list(steps.flush())
    list(steps.add(_row(20, 2)))
    assert steps.late == {0, 1, 2}


def test_an_attempt_that_continues_is_not_late() -> None:
    steps = Steps(0)
    for number, step in enumerate([0, 1, 2, 3]):
        list(steps.add(_row(number, step)))
    steps.rewind(1)
    for number, step in enumerate([2, 3, 4], 10):
        list(steps.add(_row(number, step)))
    assert steps.late == set()


def test_what_is_late_is_known_after_a_break() -> None:
    rows = [_row(number, step) for number, step in enumerate([0, 1, 2, 0, 1, 2], 1)]
    assert Steps(3, rows).late == {0, 1}
    assert Steps(3, rows, seen=6).late == set(), "it was told before"
    assert Steps(3, rows, seen=4).late == {1}
    assert Steps(0, rows).late == set(), "all is about to be sent"


def test_rows_of_a_step_merge_and_what_is_reported_again_is_left_out() -> None:
    steps = Steps(0)
    rows = [_row(1, 0, a=1), _row(2, 0, b=2), _row(3, 0, a=3), _row(4, 1, a=4)]
    assert [each for row in rows for each in steps.add(row)] == [(0, {"a": 3, "b": 2}, 3.0)]
    steps.rewind(0)
    assert list(steps.flush()) == []
    assert [each for row in [_row(5, 1, a=5), _row(6, 0, a=6)] for each in steps.add(row)] == []
    assert list(steps.flush()) == [(1, {"a": 5}, 5.0)]
