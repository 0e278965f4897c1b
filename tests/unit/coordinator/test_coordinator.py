"""The loop, driven over an executor that does what the test says, on a clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.coordinator import loop
from orchestrator.coordinator.loop import Coordinator, Transition
from orchestrator.errors import ResourceError
from orchestrator.folder.lock import Lock
from orchestrator.folder.paths import SweepFolder
from orchestrator.folder.requests import send_request
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.rows import dumps
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import (
    Batch,
    Ended,
    Event,
    Failure,
    Filed,
    Logged,
    Noticed,
    Reported,
    Restored,
    Saved,
    Started,
)
from orchestrator.model.order import Checkpoint, Order
from orchestrator.model.rows import AttemptRow
from orchestrator.model.sweep import Objective, Resources, Retries, State, SweepSpec
from tests.unit import manifests
from tests.unit.manifests import sweep_spec, trial_id, trial_spec

STARTED = Started(1.0, "node-a", "", 7, (), (), 1, "fork")
DONE = Ended(2.0, exit_code=0)
FAILED = Ended(2.0, exit_code=1, failure=Failure("KeyError", "'x'", "train.py:88", "Traceback …"))
GONE = Ended(2.0, lost="worker")
Key = tuple[str, int]


def rows(*losses: float | str, step: int = 0, metric: str = "loss") -> Reported:
    return Reported(tuple((step + index, 1.0, dumps({metric: value})) for index, value in enumerate(losses)))


class Scripted:
    """An executor in memory: it keeps what it is given, and tells what the test puts in its mouth."""

    def __init__(self, folder: SweepFolder, slots: int = 1000) -> None:
        self.folder, self.slots = folder, slots
        self.launched: list[Order] = []
        self.placed: list[Resources] = []
        self.seen_at_launch: list[AttemptRow] = []
        self.stopped: list[tuple[str, int, str]] = []
        self.killed = self.closed = False
        self.timeouts: list[float] = []
        self._batches: list[Batch] = []
        self._seq: dict[Key, int] = {}
        self._busy: set[Key] = set()

    def resolve(self, resources: Resources) -> Resources:
        return replace(resources, gpus=0.0, cpus=2.0)

    def check(self, resources: Resources) -> None:
        pass

    def free(self, resources: Resources, opened: Sequence[Resources] = ()) -> bool:
        return len(self._busy) + len(opened) < self.slots

    def launch(self, order: Order, resources: Resources) -> None:
        with Reader(self.folder) as reader:  # a connection of its own: it sees what is committed
            self.seen_at_launch.append(reader.attempts(order.trial_id)[-1])
        self.launched.append(order)
        self.placed.append(resources)
        self._busy.add((order.trial_id, order.attempt))

    def poll(self, timeout: float) -> list[Batch]:
        self.timeouts.append(timeout)
        batches, self._batches = self._batches, []
        return batches

    def stop(self, trial_id: str, attempt: int, why: str) -> None:
        self.stopped.append((trial_id, attempt, why))

    def kill(self) -> None:
        self.killed = True

    def close(self) -> None:
        self.closed = True

    def tell(self, number: int, *events: Event, attempt: int = 1, seq: int | None = None) -> None:
        """Events of a trial, which the next poll gives."""
        key = (trial_id(number), attempt)
        self._seq[key] = self._seq.get(key, -1) + 1 if seq is None else seq
        self._batches.append(Batch(*key, self._seq[key], events))
        for event in events:
            if isinstance(event, Saved):
                path = self.folder.trial(key[0]) / event.checkpoint.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        if any(isinstance(event, Ended) for event in events):
            self._busy.discard(key)


class Scene:
    """A sweep of some trials, its coordinator, and time."""

    def __init__(
        self,
        folder: SweepFolder,
        manifest: Manifest,
        trials: int = 3,
        spec: SweepSpec | None = None,
        slots: int = 1000,
        **limits: Any,
    ) -> None:
        self.manifest, self.executor, self.now = manifest, Scripted(folder, slots), 1000.0
        manifests.plan(manifest, [trial_spec(number) for number in range(trials)], spec=spec)
        plan = manifest.current_plan()
        assert plan is not None
        self.coordinator = Coordinator(manifest, self.executor, plan, ("/sweep/code",), **limits)
        self.reader = Reader(folder)
        self.tick()

    def tick(self, *numbers_done: int) -> list[Transition]:
        """One turn, in which these trials have started and succeeded."""
        for number in numbers_done:
            self.executor.tell(number, STARTED, DONE)
        self.now += 1
        return self.coordinator.tick(self.now)

    def tell(self, number: int, *events: Event, attempt: int = 1, seq: int | None = None) -> list[Transition]:
        self.executor.tell(number, *events, attempt=attempt, seq=seq)
        return self.tick()

    def launched(self) -> list[int]:
        """Trials in the order of their launches."""
        ids = {trial_id(number): number for number in range(100)}
        return [ids[order.trial_id] for order in self.executor.launched]

    def states(self) -> list[State]:
        return [row.state for row in self.reader.trials()]

    def attempts(self, number: int) -> list[AttemptRow]:
        return self.reader.attempts(trial_id(number))


@pytest.fixture
def scene(folder: SweepFolder, manifest: Manifest) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(**how: Any) -> Scene:
        made.append(Scene(folder, manifest, **how))
        return made[-1]

    yield make
    for each in made:
        each.reader.close()


# ---------------------------------------------------------------- launching


def test_trials_are_launched_in_the_order_of_the_plan_while_there_is_room(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=5, slots=2)
    assert sweep.launched() == [0, 1]
    assert sweep.states() == [State.LAUNCHING, State.LAUNCHING, *[State.PENDING] * 3]
    sweep.tick(1)
    assert sweep.launched() == [0, 1, 2]
    sweep.tick(0, 2)
    sweep.tick(3, 4)
    assert sweep.launched() == [0, 1, 2, 3, 4]
    assert sweep.coordinator.done
    assert sweep.states() == [State.SUCCEEDED] * 5


def test_a_decision_is_durable_before_it_is_acted_on(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=3)
    assert [row.state for row in sweep.executor.seen_at_launch] == [State.LAUNCHING] * 3
    assert [row.created for row in sweep.executor.seen_at_launch] == [1001.0] * 3


def test_what_an_order_says(scene: Callable[..., Scene]) -> None:
    sweep = scene(
        trials=1, spec=sweep_spec(grace=3.0, start="spawn", deterministic="error", timeout=90.0, heartbeat=5.0)
    )
    (order,) = sweep.executor.launched
    folder = sweep.manifest.folder
    assert (order.sweep_uid, order.trial_id, order.attempt) == (sweep.manifest.uid, trial_id(0), 1)
    assert (order.trainer, order.config, order.seed) == ("train:train", {"x": 0, "model": {"size": 0}}, 1)
    assert (order.import_path, order.cwd, order.folder) == (("/sweep/code",), "/work", str(folder.trial(trial_id(0))))
    assert (order.threads, order.gpus, order.grace) == (2, 0.0, 3.0)
    assert (order.timeout, order.heartbeat) == (90.0, 5.0)
    assert (order.start, order.deterministic, order.returned, order.restore) == ("spawn", "error", "loss", ())


def test_max_concurrent(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=5, max_concurrent=2)
    assert sweep.launched() == [0, 1]
    sweep.tick(0)
    assert sweep.launched() == [0, 1, 2]


def test_limit_takes_the_first_trials_of_the_plan(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=5, limit=2)
    assert sweep.launched() == [0, 1]
    sweep.tick(0, 1)
    assert sweep.coordinator.done
    assert sweep.states()[2:] == [State.PENDING] * 3


def test_more_trials_than_are_looked_up_at_once(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=600)
    assert len(sweep.executor.launched) == 600
    assert [order.trial_id for order in sweep.executor.launched] == [trial_id(number) for number in range(600)]


def test_a_full_cluster_is_waited_for_without_spinning(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1, slots=0)
    sweep.tick()
    assert sweep.launched() == []
    assert sweep.executor.timeouts[1] > 0, "nothing runs, but something waits for room"
    sweep.executor.slots = 1
    sweep.tick()
    assert sweep.launched() == [0]


def test_nothing_to_do_is_done_at_once(scene: Callable[..., Scene], manifest: Manifest) -> None:
    sweep = scene(trials=0)
    assert sweep.coordinator.done
    sweep.coordinator.run(lambda transitions: pytest.fail("nothing changes"))
    assert sweep.reader.plan().ended is not None  # type: ignore[union-attr]


def test_finished_trials_are_not_run_again(scene: Callable[..., Scene], manifest: Manifest) -> None:
    manifests.plan(manifest, [trial_spec(0), trial_spec(1)])
    manifests.run(manifest, 0)
    manifests.run(manifest, 1, manifests.FAILURE)
    assert scene(trials=3).launched() == [2]


# ---------------------------------------------------------------- ends and retries


def test_transitions_are_told(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    (running,) = sweep.tell(0, STARTED)
    assert (running.state, running.attempt, running.live.started) == (State.RUNNING, 1, STARTED)
    (failed,) = sweep.tell(0, FAILED)
    assert (failed.state, failed.message, failed.place, failed.retry) == (
        State.FAILED,
        "KeyError: 'x'",
        "train.py:88",
        False,
    )
    (row,) = sweep.attempts(0)
    assert (row.cause, row.traceback, row.started, row.ended) == ("exception", "Traceback …", 1.0, 2.0)


def exhaust(sweep: Scene, end: Ended, *, start: bool = True) -> int:
    """End every attempt at trial 0 like this; how many there were."""
    attempt = 1
    while not sweep.coordinator.done:
        sweep.tell(0, *([STARTED] if start else []), end, attempt=attempt)
        attempt += 1
        assert attempt < 50
    return attempt - 1


@pytest.mark.parametrize(
    ("retries", "attempts"), [(Retries(), 1), (Retries(error=2), 3), (Retries(error=2, lost=0), 3)]
)
def test_failures_have_a_budget(scene: Callable[..., Scene], retries: Retries, attempts: int) -> None:
    sweep = scene(trials=1, spec=sweep_spec(retries=retries))
    assert exhaust(sweep, FAILED) == attempts
    assert sweep.states() == [State.FAILED]


@pytest.mark.parametrize(("retries", "attempts"), [(Retries(), 4), (Retries(lost=0), 1), (Retries(error=5, lost=1), 2)])
def test_losses_have_another(scene: Callable[..., Scene], retries: Retries, attempts: int) -> None:
    sweep = scene(trials=1, spec=sweep_spec(retries=retries))
    assert exhaust(sweep, GONE) == attempts
    assert sweep.states() == [State.LOST]


def test_the_budgets_are_separate(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1, spec=sweep_spec(retries=Retries(error=1, lost=1)))
    for attempt, end in enumerate([GONE, FAILED], start=1):
        (*_, ended, _launching) = sweep.tell(0, STARTED, end, attempt=attempt)
        assert ended.retry
    sweep.tell(0, STARTED, FAILED, attempt=3)
    assert sweep.states() == [State.FAILED]
    assert len(sweep.attempts(0)) == 3


def test_an_attempt_that_never_started_is_free(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1, spec=sweep_spec(retries=Retries(lost=0)))
    for attempt in (1, 2, 3):
        sweep.tell(0, GONE, attempt=attempt)
    sweep.tell(0, STARTED, DONE, attempt=4)
    assert sweep.states() == [State.SUCCEEDED]


def test_one_that_never_starts_is_given_up(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    assert 1 < exhaust(sweep, GONE, start=False) < 20
    assert sweep.states() == [State.LOST]


def test_the_death_of_the_coordinator_is_free(scene: Callable[..., Scene], manifest: Manifest) -> None:
    retries = sweep_spec(retries=Retries(error=0, lost=0))
    for attempt in range(1, 6):
        sweep = scene(trials=1, spec=retries)
        sweep.tell(0, STARTED, attempt=attempt)
        with manifest.transaction():
            assert manifest.recover(1.0) == 1
    sweep = scene(trials=1, spec=retries)
    sweep.tell(0, STARTED, DONE, attempt=6)
    assert sweep.states() == [State.SUCCEEDED]


def test_when_the_first_trials_fail_alike_the_rest_is_not_started(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=6, slots=1)
    for number in range(3):
        assert not sweep.coordinator.done
        sweep.tell(number, STARTED, FAILED)
    assert sweep.launched() == [0, 1, 2]
    assert sweep.coordinator.done
    assert sweep.coordinator.early_abort.reason == "3 of 3 trials failed at train.py:88: KeyError: 'x'"
    assert sweep.states() == [State.FAILED] * 3 + [State.PENDING] * 3


def test_launches_pause_and_go_on_when_one_that_runs_succeeds(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=6, slots=4)
    for number in range(3):
        sweep.executor.tell(number, STARTED, FAILED)
    sweep.tick()
    assert sweep.launched() == [0, 1, 2, 3]
    assert not sweep.coordinator.done
    sweep.tick(3)
    assert sweep.launched() == [0, 1, 2, 3, 4, 5]
    assert sweep.coordinator.early_abort.reason is None


def test_a_trial_that_ever_succeeded_is_hope(scene: Callable[..., Scene], manifest: Manifest) -> None:
    manifests.plan(manifest, [trial_spec(0)])
    manifests.run(manifest, 0)
    sweep = scene(trials=6, slots=1)
    for number in range(1, 6):
        sweep.tell(number, STARTED, FAILED)
    assert sweep.launched() == [1, 2, 3, 4, 5]


def test_it_goes_on_where_that_is_asked_for(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=5, slots=1, spec=sweep_spec(stop_after_failures=0))
    for number in range(5):
        sweep.tell(number, STARTED, FAILED)
    assert sweep.launched() == [0, 1, 2, 3, 4]


def lose_three(sweep: Scene) -> None:
    """One trial succeeds on a good node, three lose their workers on a bad one."""
    sweep.tell(0, replace(STARTED, node_id="good"), DONE)
    for number in (1, 2, 3):
        sweep.tell(number, replace(STARTED, node="host", node_id="bad"), GONE)


def test_a_node_in_quarantine_gets_no_more_trials(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=6, slots=4, spec=sweep_spec(objective=None))
    lose_three(sweep)
    assert sweep.coordinator.warnings == [
        "host gets no more trials: 3 in a row failed there, the last one with a lost worker"
    ]
    placed = [resources.labels for resources in sweep.executor.placed]
    assert placed[0] == {}
    assert placed[-1] == {"ray.io/node-id": "!in(bad)"}


def test_a_node_that_is_the_last_with_a_gpu_stays(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    def check(self: Scripted, resources: Resources) -> None:
        raise ResourceError("no node has that")

    monkeypatch.setattr(Scripted, "check", check)
    sweep = scene(trials=6, slots=4)
    lose_three(sweep)
    assert sweep.coordinator.warnings
    assert all(resources.labels == {} for resources in sweep.executor.placed)


def test_the_options_of_a_plan_are_counted(manifest: Manifest) -> None:
    options = [{"model": "lstm", "act": "relu", "lr": 1}, {"model": "gru", "act": "relu", "lr": 2, "extra": None}]
    old = manifests.plan(manifest, [trial_spec(9, overrides={"act": "tanh"})])
    plan = manifests.plan(manifest, [trial_spec(number, overrides=given) for number, given in enumerate(options)])
    assert manifest.several_options(plan) == {"model"}
    assert manifest.several_options(old) == set()


def test_one_bad_trial_does_not_hold_the_others(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=3, slots=1)
    sweep.tell(0, STARTED, FAILED)
    sweep.tick(1)
    sweep.tick(2)
    assert sweep.states() == [State.FAILED, State.SUCCEEDED, State.SUCCEEDED]


def test_a_retry_goes_before_the_rest_of_the_plan(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=3, slots=1)
    sweep.tell(0, STARTED, GONE)
    assert sweep.launched() == [0, 0]


# ---------------------------------------------------------------- late, twice, out of place


def test_events_of_a_closed_attempt_are_dropped(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, rows(0.5), GONE)
    assert sweep.tell(0, rows(0.1), DONE, attempt=1) == []
    assert [row.state for row in sweep.attempts(0)] == [State.LOST, State.LAUNCHING]
    assert [row.metrics for row in sweep.reader.reports(0)] == [{"loss": 0.5}]


def test_a_batch_that_comes_twice_counts_once(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, seq=0)
    for _ in range(3):
        sweep.tell(0, rows(0.5), seq=1)
    sweep.tell(0, rows(0.7), seq=0)
    assert [row.metrics for row in sweep.reader.reports(0)] == [{"loss": 0.5}]


def test_what_follows_the_end_is_dropped(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, DONE, FAILED, rows(1.0))
    assert sweep.states() == [State.SUCCEEDED]
    assert sweep.reader.last_report() == 0


def test_an_unknown_trial_is_passed_over(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    assert sweep.tell(50, STARTED, DONE) == []
    assert sweep.tell(0, STARTED, attempt=9) == []


# ---------------------------------------------------------------- checkpoints


def saved(step: int) -> Saved:
    return Saved(Checkpoint(step, f"checkpoints/{step}"), 1.5)


def test_a_checkpoint_that_is_taken_keeps_the_series(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, rows(0.9, 0.8, 0.1), saved(1), GONE)
    assert sweep.executor.launched[-1].restore == (Checkpoint(1, "checkpoints/1"),)
    sweep.tell(0, STARTED, Restored(1), attempt=2)
    (trial,) = sweep.reader.trials()
    assert (trial.metrics, trial.objective) == ({"loss": 0.8}, 0.8), "what lay behind the checkpoint is void"
    sweep.tell(0, rows(0.7, step=2), DONE, attempt=2)
    assert sweep.attempts(0)[-1].lineage == 1
    assert {step: row["loss"] for step, row in sweep.reader.series(trial_id(0)).items()} == {0: 0.9, 1: 0.8, 2: 0.7}


def test_the_best_of_a_series_does_not_count_what_was_superseded(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1, spec=sweep_spec(objective=Objective("loss", "min", "best")))
    sweep.tell(0, STARTED, rows(0.9, 0.8, 0.1), saved(1), GONE)
    sweep.tell(0, STARTED, Restored(1), rows(0.85, step=2), DONE, attempt=2)
    (trial,) = sweep.reader.trials()
    assert trial.objective == 0.8


def test_a_checkpoint_that_is_not_taken_begins_a_series(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, rows(0.1), saved(0), GONE)
    sweep.tell(0, STARTED, rows(0.9), attempt=2)
    assert sweep.attempts(0)[-1].lineage == 2
    (trial,) = sweep.reader.trials()
    assert (trial.metrics, trial.objective) == ({"loss": 0.9}, 0.9)
    assert sweep.reader.series(trial_id(0)) == {0: {"loss": 0.9}}
    sweep.tell(0, GONE, attempt=2)
    assert sweep.executor.launched[-1].restore == (), "the older series' checkpoint is not offered again"


def test_a_retry_without_a_checkpoint_begins_a_series(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, rows(0.1), GONE)
    assert (sweep.executor.launched[-1].restore, sweep.attempts(0)[-1].lineage) == ((), 2)


def test_a_success_is_run_anew(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, saved(0), DONE)
    sweep.coordinator.resubmit([trial_id(0)])
    sweep.tick()
    assert (sweep.executor.launched[-1].restore, sweep.attempts(0)[-1].lineage) == ((), 2)


# ---------------------------------------------------------------- metrics and files


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (Objective("loss", "min", "last"), 0.5),
        (Objective("loss", "min", "best"), 0.2),
        (Objective("loss", "max", "best"), 0.7),
        (Objective("other", "max", "best"), None),
        (None, None),
    ],
)
def test_objective(scene: Callable[..., Scene], objective: Objective | None, expected: float | None) -> None:
    sweep = scene(trials=1, spec=sweep_spec(objective=objective))
    sweep.tell(0, STARTED, rows(0.7, 0.2))
    sweep.tell(0, rows("NaN", 0.5, step=2), DONE)
    (trial,) = sweep.reader.trials()
    assert (trial.objective, trial.metrics) == (expected, {"loss": 0.5})


def test_a_last_value_that_is_no_number_is_no_objective(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, rows(0.7, "NaN"), DONE)
    (trial,) = sweep.reader.trials()
    assert trial.objective is None


def test_output_is_appended_to_the_log_of_its_attempt(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, Logged(b"one\n"))
    sweep.tell(0, Logged(b"two\n"), GONE)
    sweep.tell(0, STARTED, Logged(b"three\n"), DONE, attempt=2)
    folder = sweep.manifest.folder
    assert folder.attempt_log(trial_id(0), 1).read_bytes() == b"one\ntwo\n"
    assert folder.attempt_log(trial_id(0), 2).read_bytes() == b"three\n"


def test_files_stay_in_the_folder_of_their_trial(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    root = sweep.manifest.folder.trial(trial_id(0))
    wrong = ["../escaped", "/tmp/orchestrate-escaped", "files/../../escaped", "", ".", "files/.."]
    sweep.tell(0, STARTED, Filed("files/a/b.txt", b"b"), *[Filed(path, b"x") for path in wrong])
    (root / "link").symlink_to(root.parent)
    sweep.tell(0, Filed("link/escaped", b"x"), Filed("files/a/b.txt", b"newer"))
    found = sorted(path.relative_to(root.parent).as_posix() for path in root.parent.rglob("*") if path.is_file())
    assert found == [f"{trial_id(0)}/files/a/b.txt"]
    assert (root / "files/a/b.txt").read_bytes() == b"newer"
    assert sum("outside the trial's folder" in warning for warning in sweep.coordinator.warnings) == len(wrong) + 1


def test_a_log_that_cannot_be_written_ends_nothing(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.manifest.folder.attempt_log(trial_id(0), 1).mkdir(parents=True)
    sweep.tell(0, STARTED, Logged(b"one\n"), Filed("attempt-1.log/x/y", b""), DONE)
    assert sweep.states() == [State.SUCCEEDED]
    assert "output is not kept" in sweep.coordinator.warnings[0]


def test_a_notice_is_kept_and_shown_once(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=2, spec=sweep_spec(objective=None))
    for number in (0, 1):
        sweep.tell(number, STARTED, Noticed("careful"), DONE)
    assert sweep.coordinator.warnings == ["careful"]
    assert sweep.reader.notices(trial_id(0)) == sweep.reader.notices(trial_id(1)) == ["careful"]


# ---------------------------------------------------------------- stopping


CANCELLED = Ended(2.0, signal=15, asked="cancelled")


def test_stopping_cancels_what_runs_and_leaves_the_rest_waiting(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=4, slots=3)
    sweep.tell(0, STARTED, DONE)
    sweep.tell(1, STARTED)
    sweep.coordinator.request_stop()
    sweep.tick()
    assert sorted(sweep.executor.stopped) == sorted((trial_id(number), 1, "cancelled") for number in (1, 2, 3))
    assert not sweep.coordinator.done
    sweep.tell(1, rows(0.3), CANCELLED)
    sweep.tell(2, Ended(2.0, asked="cancelled"))
    sweep.tell(3, GONE)
    assert sweep.coordinator.done
    assert sweep.states() == [State.SUCCEEDED, State.CANCELLED, State.PENDING, State.PENDING]
    assert sweep.reader.exactly(trial_id(1)).metrics == {"loss": 0.3}, "its last words arrive"
    assert len(sweep.executor.launched) == 4


def test_one_that_ends_by_itself_while_stopping_has_succeeded(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED)
    sweep.coordinator.request_stop()
    sweep.tell(0, DONE)
    assert sweep.states() == [State.SUCCEEDED]


def test_killing_ends_at_once(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=2)
    sweep.tell(0, STARTED)
    sweep.coordinator.request_kill()
    sweep.tick()
    assert sweep.executor.killed
    assert sweep.coordinator.done
    assert sweep.states() == [State.CANCELLED, State.PENDING]


def test_what_was_stopped_goes_on_with_the_next_plan(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=2)
    sweep.tell(0, STARTED, saved(3))
    sweep.coordinator.request_stop()
    sweep.tell(0, CANCELLED)
    sweep.tell(1, Ended(2.0, asked="cancelled"))
    again = scene(trials=2)
    assert again.launched() == [0, 1]
    assert [order.restore for order in again.executor.launched] == [(Checkpoint(3, "checkpoints/3"),), ()]


# ---------------------------------------------------------------- requests


def ask(sweep: Scene, request: Mapping[str, Any]) -> str | None:
    """As another process does it, while the coordinator ticks."""
    answers: list[str | None] = []
    folder = sweep.manifest.folder
    with held(folder):
        asking = threading.Thread(target=lambda: answers.append(send_request(folder, dict(request), timeout=20)))
        asking.start()
        while asking.is_alive():
            sweep.tick()
            asking.join(0.01)
    return answers[0]


@contextmanager
def held(folder: SweepFolder) -> Iterator[None]:
    lock = Lock.take(folder)
    try:
        yield
    finally:
        lock.release()


def test_a_resubmitted_trial_joins_the_queue(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=2)
    sweep.tell(0, STARTED, FAILED)
    assert ask(sweep, {"kind": "resubmit", "trials": [trial_id(0), trial_id(1), "unknown"]}) == "1 trial queued"
    assert sweep.launched() == [0, 1, 0]
    sweep.tell(0, STARTED, DONE, attempt=2)
    assert sweep.states() == [State.SUCCEEDED, State.LAUNCHING]


def test_a_trial_resubmitted_while_it_waits_runs_once(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=3, slots=1)
    sweep.tell(0, STARTED, GONE)  # waits again, at the head
    sweep.tell(0, STARTED, FAILED, attempt=2)
    sweep.coordinator.resubmit([trial_id(0)])
    sweep.executor.slots = 0
    sweep.tick()
    sweep.coordinator.resubmit([trial_id(0)])
    sweep.executor.slots = 10
    sweep.tick()
    assert sweep.launched() == [0, 0, 1, 0, 2]
    assert [row.state for row in sweep.attempts(0)] == [State.LOST, State.FAILED, State.LAUNCHING]


def test_one_of_the_plan_that_is_resubmitted_before_its_turn_runs_once(
    scene: Callable[..., Scene], manifest: Manifest
) -> None:
    manifests.plan(manifest, [trial_spec(number) for number in range(3)])
    manifests.begin(manifest, 2)
    with manifest.transaction():
        manifest.recover(1.0)
    sweep = scene(trials=3, slots=1)
    sweep.coordinator.resubmit([trial_id(2)])
    sweep.executor.slots = 10
    sweep.tick()
    assert sorted(sweep.launched()) == [0, 1, 2]


def test_one_of_an_earlier_plan_runs_by_name(scene: Callable[..., Scene], manifest: Manifest) -> None:
    manifests.plan(manifest, [trial_spec(9)])
    manifests.run(manifest, 9, manifests.FAILURE)
    with manifest.transaction():
        first = manifest.resubmit([trial_id(9)])
    sweep = scene(trials=2, first=first)
    assert sweep.launched() == [9, 0, 1]
    sweep.tell(9, STARTED, DONE, attempt=2)
    assert sweep.reader.exactly(trial_id(9)).state is State.SUCCEEDED
    assert sweep.states() == [State.LAUNCHING] * 2


def test_stop_by_request(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=2)
    sweep.tell(0, STARTED)
    assert ask(sweep, {"kind": "stop"}) == "2 trials asked to end"
    assert sweep.coordinator.stopping
    sweep.tell(0, FAILED)
    assert "for the next run" in str(ask(sweep, {"kind": "resubmit", "trials": [trial_id(0)]}))


def test_out_of_memory_is_retried_alone(scene: Callable[..., Scene]) -> None:
    """Once, by itself; with the threads that it had. Who resubmits it afterwards decides for himself."""
    sweep = scene(trials=1)
    full = Ended(2.0, signal=9, asked="oom", detail="held 9 GiB")
    sweep.tell(0, STARTED, full)
    assert [size.alone for size in sweep.executor.placed] == ["", "node"]
    assert len({order.threads for order in sweep.executor.launched}) == 1
    sweep.tell(0, STARTED, full, attempt=2)
    sweep.coordinator.resubmit([trial_id(0)])
    sweep.tick()
    assert [size.alone for size in sweep.executor.placed] == ["", "node", ""]


def test_resubmitted_with_other_settings(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=2)
    sweep.tell(0, STARTED, FAILED)
    wanted = {"sweep.resources.memory": "2GB", "sweep.timeout": "5m"}
    assert ask(sweep, {"kind": "resubmit", "trials": [trial_id(0)], "set": wanted}) == "1 trial queued"
    assert (sweep.executor.placed[-1].memory, sweep.executor.launched[-1].timeout) == (2 * 10**9, 300.0)
    assert sweep.executor.placed[1].memory == 0
    plan = sweep.manifest.current_plan()
    assert plan is not None
    assert plan.spec.timeout == 300.0


def test_a_setting_that_is_wrong_changes_nothing(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, FAILED)
    answer = ask(sweep, {"kind": "resubmit", "trials": [trial_id(0)], "set": {"sweep.resources.memory": "much"}})
    assert str(answer).startswith("nothing is queued: --set: sweep.resources.memory: expected a size")
    assert sweep.launched() == [0]


def test_a_success_without_its_objective_is_told_once(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=3, spec=sweep_spec(objective=Objective("loss")))
    sweep.tell(0, STARTED, rows("NaN"), DONE)
    assert sweep.coordinator.warnings == []
    sweep.tell(1, STARTED, rows(1.0, metric="los"), DONE)
    sweep.tell(2, STARTED, DONE)
    (warning,) = sweep.coordinator.warnings
    assert warning == "a trial succeeded without a report of 'loss', which is sweep.objective"
    assert [len(sweep.reader.notices(trial_id(number))) for number in range(3)] == [0, 1, 1]


def test_an_unknown_request_is_answered(scene: Callable[..., Scene]) -> None:
    assert ask(scene(trials=1), {"kind": "dance"}) == "this coordinator does not know that request"


def test_a_damaged_request_is_dropped(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    for text in ("{", "[]", ""):
        (sweep.manifest.folder.requests / f"1{len(text)}.json").write_text(text)
    sweep.tick()
    assert list(sweep.manifest.folder.requests.iterdir()) == []


def test_an_answer_is_given_when_it_is_durable(
    scene: Callable[..., Scene], manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, FAILED)
    seen: list[State] = []

    def answer(path: Any, text: str) -> None:
        seen.extend(sweep.states())
        path.unlink()

    monkeypatch.setattr(loop, "answer_request", answer)
    (manifest.folder.requests / "1.json").write_text(dumps({"kind": "resubmit", "trials": [trial_id(0)]}))
    sweep.executor.slots = 0
    sweep.tick()
    assert seen == [State.PENDING], "another connection sees what was answered"
