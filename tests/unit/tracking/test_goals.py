"""What is sent to a tracker and when, without a network: the pure part, and the follower before a tracker of ours."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import RefusedError, TrackingError
from orchestrator.folder.paths import SweepFolder, create_folder
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Ended, Outcome, Started
from orchestrator.model.rows import AttemptRow, ReportRow
from orchestrator.model.sweep import State, SweepSpec, TrialSpec
from orchestrator.ports import TrackedRun
from orchestrator.tracking.follower import Follower
from orchestrator.tracking.goals import Steps, goals, run_id
from orchestrator.tracking.ledger import Ledger
from tests.unit import manifests


def _attempt(number: int, state: State, lineage: int = 1, retry: bool = False, **other: Any) -> AttemptRow:
    text = dict.fromkeys(("cause", "message", "traceback", "place", "node", "method", "code"), "")
    none = dict.fromkeys(("ended", "entered", "returned", "pid", "threads", "restored", "objective"))
    row = AttemptRow(
        trial_id="t", purpose="trial", plan=1, parent=None, resources=None, ignored=None, deterministic=None,
        attempt=number, state=state, lineage=lineage, retry=retry, created=0, started=1, gpus=(),
        gpu_uuids=(), metrics={}, changed=number, **text, **none,
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


def test_rows_of_a_step_merge_and_what_is_reported_again_is_left_out() -> None:
    steps = Steps(0)
    rows = [_row(1, 0, a=1), _row(2, 0, b=2), _row(3, 0, a=3), _row(4, 1, a=4)]
    assert [each for row in rows for each in steps.add(row)] == [(0, {"a": 3, "b": 2}, 3.0)]
    steps.rewind(0)
    assert list(steps.flush()) == []
    assert [each for row in [_row(5, 1, a=5), _row(6, 0, a=6)] for each in steps.add(row)] == []
    assert list(steps.flush()) == [(1, {"a": 5}, 5.0)]


class Board:
    """A tracker in memory, which fails when told to."""

    def __init__(self) -> None:
        self.steps: dict[str, list[int]] = {}
        self.ended: dict[str, tuple[int, tuple[str, ...]]] = {}
        self.out = False
        self.refuses: set[str] = set()

    def start(self, run: TrackedRun) -> int:
        self._check()
        if run.config["sweep"]["trial"] in self.refuses:
            raise RefusedError("no")
        return max(self.steps.setdefault(run.run_id, []), default=-1) + 1

    def log(self, run_id: str, step: int, metrics: Mapping[str, float], time: float) -> None:
        self._check()
        self.steps[run_id].append(step)

    def finish(self, run_id: str, exit_code: int, tags: Sequence[str]) -> None:
        self._check()
        self.ended[run_id] = (exit_code, tuple(tags))

    def address(self) -> str | None:
        return "https://board"

    def close(self) -> None:
        """Nothing is held."""

    def _check(self) -> None:
        if self.out:
            raise TrackingError("out")


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    """Four trials that succeeded, each with steps 0 to 9."""
    folder = create_folder(tmp_path, "sums")
    manifest = Manifest.open(folder)
    with manifest.transaction():
        plan = manifest.plans.begin(SweepSpec("sums", "m:f"), "sweep.yaml", [], {}, "c0de", "/")
        manifest.plans.add_trials(plan, [TrialSpec(f"{n:012x}", {"n": n}, {"n": n}, n, "c") for n in range(4)])
        manifest.plans.finish(plan, 4, 0, 0)
        for due in manifest.trials.due(plan, -1, 4):
            manifest.attempts.open(manifests.opening(due.key))
            manifest.attempts.started(due.key, 1, Started(1.0, "here", "", 1, (), (), 1, "fork"))
            manifest.attempts.reported(due.key, 1, [(step, float(step), '{"x":1}') for step in range(10)])
            manifest.attempts.close(due.key, 1, Outcome(State.SUCCEEDED), Ended(2.0))
    manifest.close()
    return folder


def _drive(folder: SweepFolder, board: Board, seconds: float = 10.0) -> Follower:
    ledger = Ledger(folder, "online", write=True)
    follower = Follower(folder, ledger, board, live=True)
    deadline = time.monotonic() + seconds
    while not follower.tick(held=False) and time.monotonic() < deadline:
        time.sleep(0.005)
    ledger.close()
    return follower


def test_all_is_delivered_once_and_then_nothing_is_left(sweep: SweepFolder) -> None:
    board = Board()
    assert _drive(sweep, board).sent == 4
    assert list(board.steps.values()) == [list(range(10))] * 4
    assert _drive(sweep, board).sent == 0
    with Reader(sweep) as reader, contextlib.closing(Ledger(sweep, "online")) as ledger:
        assert ledger.cursor == reader.changed_attempts(0)[-1].changed


def test_what_fails_is_sent_again_from_where_the_tracker_is(sweep: SweepFolder) -> None:
    board = Board()
    board.out = True
    assert _drive(sweep, board, seconds=0.2).sent == 0
    board.out = False
    half = run_id(sweep.uid.read_text(), f"{0:012x}", 1)
    board.steps[half] = [0, 1, 2, 3]  # of a tracker that was killed
    assert _drive(sweep, board).sent == 4
    assert list(board.steps.values()) == [list(range(10))] * 4


def test_a_refused_run_is_given_up_and_tried_again_by_the_next(sweep: SweepFolder) -> None:
    board = Board()
    board.refuses = {f"{1:012x}"}
    first = _drive(sweep, board)
    assert (first.sent, first.refused, len(board.ended)) == (3, 1, 3)
    board.refuses = set()
    assert (_drive(sweep, board).sent, len(board.ended)) == (1, 4)
