"""What the events of an attempt leave in the manifest and in the sweep's folder."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.coordinator.recording import MAX_METRICS
from orchestrator.model.events import Filed, Logged, Noticed, Reported
from orchestrator.model.exact_json import dumps
from orchestrator.model.sweep import Objective, State
from tests.unit.coordinator.support import DONE, FAILED, GONE, STARTED, Scene, rows
from tests.unit.manifests import sweep_spec, trial_id


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


def test_a_name_for_each_value_does_not_slow_the_sweep(scene: Callable[..., Scene]) -> None:
    """The last value of each metric is written at every turn, so there is a bound to how many metrics count."""
    sweep = scene(trials=1, spec=sweep_spec(objective=Objective("loss", "min")))
    names = [f"batch {number}" for number in range(MAX_METRICS + 500)]
    many = [Reported(tuple((step, 1.0, dumps({name: 0.5})) for step, name in enumerate(names)))] * 2
    sweep.tell(0, STARTED, *many, rows(0.25), DONE)
    (trial,) = sweep.reader.trials()
    assert trial.metrics == {**dict.fromkeys(names[:MAX_METRICS], 0.5), "loss": 0.25}
    assert trial.objective == 0.25
    assert len(sweep.reader.reports(0, limit=10**6)) == 2 * len(names) + 1
    assert [text[:22] for text in sweep.reader.notices(trial_id(0))] == ["more than 10000 metric"]


def test_a_notice_is_kept_and_shown_once(scene: Callable[..., Scene]) -> None:
    sweep = scene(trials=2, spec=sweep_spec(objective=None))
    for number in (0, 1):
        sweep.tell(number, STARTED, Noticed("careful"), DONE)
    assert sweep.coordinator.warnings == ["careful"]
    assert sweep.reader.notices(trial_id(0)) == sweep.reader.notices(trial_id(1)) == ["careful"]
