"""What other commands ask of a live coordinator."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from orchestrator.errors import ManifestError
from orchestrator.folder.lock import Lock
from orchestrator.folder.paths import SweepFolder
from orchestrator.folder.requests import send_request
from orchestrator.manifest.writer import Manifest
from orchestrator.model.exact_json import dumps
from orchestrator.model.sweep import State
from tests.unit import manifests
from tests.unit.coordinator.support import DONE, FAILED, GONE, STARTED, Scene
from tests.unit.manifests import trial_id, trial_spec


def ask(sweep: Scene, request: Mapping[str, Any]) -> str | None:
    """Send a request as another process does, while the coordinator ticks; returns the answer."""
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
        manifest.attempts.recover(1.0)
    sweep = scene(trials=3, slots=1)
    sweep.coordinator.resubmit([trial_id(2)])
    sweep.executor.slots = 10
    sweep.tick()
    assert sorted(sweep.launched()) == [0, 1, 2]


def test_one_of_an_earlier_plan_runs_by_name(scene: Callable[..., Scene], manifest: Manifest) -> None:
    manifests.plan(manifest, [trial_spec(9)])
    manifests.run(manifest, 9, manifests.FAILURE)
    with manifest.transaction():
        first = manifest.trials.resubmit([trial_id(9)])
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


def test_resubmitted_with_other_settings(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=2)
    sweep.tell(0, STARTED, FAILED)
    wanted = {"sweep.resources.memory": "2GB", "sweep.timeout": "5m"}
    assert ask(sweep, {"kind": "resubmit", "trials": [trial_id(0)], "set": wanted}) == "1 trial queued"
    assert (sweep.executor.placed[-1].memory, sweep.executor.launched[-1].timeout) == (2 * 10**9, 300.0)
    assert sweep.executor.placed[1].memory == 0
    plan = sweep.manifest.plans.current()
    assert plan is not None
    assert plan.spec.timeout == 300.0


def test_a_setting_that_is_wrong_changes_nothing(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, FAILED)
    answer = ask(sweep, {"kind": "resubmit", "trials": [trial_id(0)], "set": {"sweep.resources.memory": "much"}})
    assert str(answer).startswith("nothing is queued: --set: sweep.resources.memory: expected a size")
    assert sweep.launched() == [0]


def test_an_unknown_request_is_answered(scene: Callable[..., Scene]) -> None:
    assert ask(scene(trials=1), {"kind": "dance"}) == "this coordinator does not know that request"


def test_a_damaged_request_is_dropped(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=1)
    for text in ("{", "[]", ""):
        (sweep.manifest.folder.requests / f"1{len(text)}.json").write_text(text)
    sweep.tick()
    assert list(sweep.manifest.folder.requests.iterdir()) == []


class FullDisk(Manifest):
    """A manifest whose transactions can be made to fail at their end."""

    full = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with super().transaction():
            yield
            if self.full:
                raise ManifestError("the disk is full")


def test_nothing_is_answered_before_it_is_durable(folder: SweepFolder) -> None:
    manifest = FullDisk.open(folder)
    assert isinstance(manifest, FullDisk)
    sweep = Scene(manifest, trials=1, slots=1)
    sweep.tell(0, STARTED, FAILED)
    request = folder.requests / "1.json"
    request.write_text(dumps({"kind": "resubmit", "trials": [trial_id(0)]}))
    manifest.full = True
    with pytest.raises(ManifestError):
        sweep.tick()
    assert sweep.states() == [State.FAILED]
    assert list(folder.requests.iterdir()) == [request]
    manifest.full = False
    sweep.tick()
    assert sweep.launched() == [0, 0]
    assert not request.exists()
    sweep.reader.close()
    manifest.close()


def test_a_request_that_makes_no_sense_is_answered(scene: Callable[..., Scene]) -> None:
    """It used to end the coordinator."""
    sweep = scene(trials=1)
    assert ask(sweep, {"kind": "resubmit", "trials": 5}) == (
        "this request cannot be read: trials must be a list of trial ids"
    )
    assert sweep.launched() == [0]


def test_an_answer_that_cannot_be_written_stops_no_launch(scene: Callable[..., Scene]) -> None:
    """What was committed is launched all the same, and the request is not carried out twice."""
    sweep = scene(trials=1)
    sweep.tell(0, STARTED, FAILED)
    requests = sweep.manifest.folder.requests
    (requests / "1.json").write_text(dumps({"kind": "resubmit", "trials": [trial_id(0)]}))
    (requests / ".1.answer.part").mkdir()  # where the answer would be drafted
    sweep.tick()
    assert sweep.launched() == [0, 0]
    assert [path.name for path in requests.glob("*.json")] == []
    assert any("cannot be answered" in warning for warning in sweep.coordinator.warnings)
