"""The follower before a tracker in memory: without a process, and without a network."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from orchestrator.errors import RefusedError, TrackingError
from orchestrator.folder.paths import SweepFolder, create_folder
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Ended, Outcome, Restored, Started
from orchestrator.model.sweep import State, SweepSpec, TrialSpec
from orchestrator.ports import TrackedRun
from orchestrator.tracking.follower import Follower
from orchestrator.tracking.goals import run_id
from orchestrator.tracking.ledger import Ledger
from tests.unit import manifests
from tests.unit.tracking.support import Sweep, until


class Board:
    """A tracker in memory, which fails when told to."""

    live, destination, dead = True, "board", False

    def __init__(self) -> None:
        self.steps: dict[str, list[int]] = {}
        self.metrics: list[Mapping[str, float]] = []
        self.ended: dict[str, tuple[int, tuple[str, ...]]] = {}
        self.out = False
        self.refuses: set[str] = set()

    def start(self, run: TrackedRun) -> int:
        self._check()
        if run.trial_id in self.refuses:
            raise RefusedError("no")
        return max(self.steps.setdefault(run.run_id, []), default=-1) + 1

    def log(self, run_id: str, step: int, metrics: Mapping[str, float], time: float) -> None:
        self._check()
        self.steps[run_id].append(step)
        self.metrics.append(metrics)

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
    return _written(tmp_path, 4)


def _written(root: Path, trials: int) -> SweepFolder:
    """A sweep whose trials all have succeeded, each with steps 0 to 9."""
    folder = create_folder(root, "sums")
    manifest = Manifest.open(folder)
    with manifest.transaction():
        plan = manifest.plans.begin(SweepSpec("sums", "m:f"), "sweep.yaml", [], {}, "c0de", "/")
        manifest.plans.add_trials(plan, [TrialSpec(f"{n:012x}", {"n": n}, {"n": n}, n, "c") for n in range(trials)])
        manifest.plans.finish(plan, trials, 0, 0)
        for due in manifest.trials.due(plan, -1, trials):
            manifest.attempts.open(manifests.opening(due.key))
            manifest.attempts.started(due.key, 1, Started(1.0, "here", "", 1, (), (), 1, "fork"))
            manifest.attempts.reported(due.key, 1, [(step, float(step), '{"x":1}') for step in range(10)])
            manifest.attempts.close(due.key, 1, Outcome(State.SUCCEEDED), Ended(2.0))
    manifest.close()
    return folder


def _ledger(folder: SweepFolder) -> Ledger:
    folder.tracking.mkdir(exist_ok=True)
    return Ledger(folder.tracker_ledger("board"), Board.destination)


def _drive(folder: SweepFolder, board: Board, seconds: float = 10.0) -> Follower:
    ledger = _ledger(folder)
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
    with Reader(sweep) as reader, contextlib.closing(_ledger(sweep)) as ledger:
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


@pytest.mark.fault(
    "wandb",
    "the server is away while many runs end",
    "a tracker in memory, 2,100 runs",
    "the tracker pauses between two tries, and reads no further; later all are delivered",
)
def test_a_full_backlog_is_no_reason_to_look_again_at_once(tmp_path: Path) -> None:
    """The tracker is away: whoever calls `tick` pauses. When it is back, the rest is read from the manifest."""
    sweep, board = _written(tmp_path, 2100), Board()
    board.out = True
    follower = Follower(sweep, _ledger(sweep), board, live=True)
    ticks = [(follower.tick(held=True), follower.more, follower.left) for _ in range(5)]
    assert ticks == [(False, True, 1000), (False, True, 2000), *[(False, False, 2000)] * 3]
    board.out = False
    assert _drive(sweep, board, seconds=60.0).sent == 2100


@pytest.mark.fault(
    "wandb",
    "an attempt goes on from a checkpoint while its run is being opened",
    "a tracker in memory, which answers after the attempt has ended",
    "each step arrives once, with the numbers of the attempt that went on",
)
def test_an_attempt_that_goes_on_while_its_run_is_opened_loses_no_step(tmp_path: Path) -> None:
    """What it restored and what it then reported become known together, after the tracker has looked at attempts."""
    written = Sweep(tmp_path, {"jsonl": "x"}, trials=1)

    class Slow(Board):
        def address(self) -> str | None:
            if not self.ended and written.held:
                with written.manifest.transaction():
                    written.manifest.attempts.restored(written.keys[0], 2, Restored(1, "", time.time()), 1)
                written.report(range(2, 4), attempt=2)
                written.end(State.SUCCEEDED, attempt=2)
                written.release()
            return super().address()

    written.begin()
    written.report(range(4), loss=0.5)
    written.end(State.LOST, retry=True)
    written.begin(attempt=2)
    board = Slow()
    follower = Follower(written.folder, _ledger(written.folder), board, live=True)
    until(lambda: follower.tick(held=True))
    assert follower.sent == 1
    assert list(board.steps.values()) == [[0, 1, 2, 3]]
    assert board.metrics[-2:] == [{"loss": 1.0}, {"loss": 1.5}], "of the attempt that went on"
