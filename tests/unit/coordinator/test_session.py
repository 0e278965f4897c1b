"""Writing a plan: all of it, or nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.common import sweep_command
from orchestrator.coordinator.loop import Transition
from orchestrator.coordinator.opening import plan_sweep, reopen
from orchestrator.coordinator.session import RunLimits, Session, drive, hold, settle
from orchestrator.errors import ConfigError, LockedError, ManifestError, ResourceError, TrainerError
from orchestrator.executors.local import LocalExecutor
from orchestrator.folder import lock
from orchestrator.folder.lock import Lock
from orchestrator.folder.paths import SweepFolder
from orchestrator.language.planning import PlanSummary
from orchestrator.manifest.reader import Reader
from orchestrator.model.sweep import Resources, State, SweepSpec, TrialSpec
from tests.unit.manifests import FAILURE, run, sweep_spec, trial_id, trial_spec
from tests.unit.tracking.support import until


@dataclass
class Plan:
    """What `planning.load` gives, as far as a session asks."""

    spec: SweepSpec = field(default_factory=lambda: sweep_spec(trainer="train:train"))
    file: Path = Path("conf/sweep.yaml")
    overrides: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    count: int = 3

    def trials(self) -> Any:
        for number in range(self.count):
            yield self.trial(number)

    def trial(self, number: int) -> TrialSpec:
        return trial_spec(number)

    def summary(self) -> PlanSummary:
        return PlanSummary(self.count, 0, 0, {}, ())


class Machine(LocalExecutor):
    """This machine, which remembers whether it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True
        super().close()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "project"
    place.mkdir()
    (place / "train.py").write_text("def train(cfg): pass\n")
    monkeypatch.chdir(place)
    return place


def write(project: Path, plan: Any = None, machine: Machine | None = None, runs: str = "runs") -> Session:
    return plan_sweep(project / runs, plan or Plan(), project, None, RunLimits(), lambda: machine or Machine(cpus=1))


def files(place: Path) -> list[str]:
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if "__pycache__" not in path.parts)


def test_a_plan_is_written_whole(project: Path) -> None:
    session = write(project)
    assert session.plan is not None
    assert session.plan.total == 3
    tree = session.folder.code / str(session.plan.provenance["tree"])
    assert files(tree) == ["train.py"]
    session.release()
    session.release()
    with Reader(session.folder) as reader:
        assert reader.counts() == {State.PENDING: 3}


class Broken(Plan):
    def trial(self, number: int) -> TrialSpec:
        if number == 2:
            raise ZeroDivisionError
        return trial_spec(number)


class TooLarge(Plan):
    def trial(self, number: int) -> TrialSpec:
        return trial_spec(number, resources=Resources(gpus=0, cpus=3))


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception]]] = {
    "trainer": (lambda: Plan(spec=sweep_spec(trainer="train:missing")), TrainerError),
    "resources": (TooLarge, ResourceError),
    "config": (Broken, ZeroDivisionError),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_leaves_nothing_behind(project: Path, mistake: str) -> None:
    plan, error = MISTAKES[mistake]
    machine = Machine(cpus=1)
    with pytest.raises(error):
        write(project, plan(), machine)
    assert files(project) == ["train.py"]
    assert machine.closed == (mistake != "config"), "it was started once all configs had proved right"
    write(project).release()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_leaves_an_older_sweep_as_it_was(project: Path, mistake: str) -> None:
    write(project).release()
    plan, error = MISTAKES[mistake]
    with pytest.raises(error):
        write(project, plan())
    with Reader(SweepFolder(project / "runs" / "s")) as reader:
        assert reader.counts() == {State.PENDING: 3}
        found = reader.plan()
        assert found is not None
        assert found.plan == 1


def test_a_mistake_never_removes_what_was_there_before(project: Path) -> None:
    """`--runs .` and a sweep named as a folder of the user's."""
    notes = project / "s" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    with pytest.raises(TrainerError):
        write(project, MISTAKES["trainer"][0](), runs=".")
    assert notes.read_text() == "mine"
    assert not (project / "s" / "manifest.db").exists()


def test_a_second_start_of_a_new_sweep_removes_nothing(project: Path) -> None:
    """It comes before the first one has written its manifest."""
    root = project / "runs"
    (root / "s").mkdir(parents=True)
    lock = Lock.take(SweepFolder(root / "s"))
    with pytest.raises(LockedError):
        write(project)
    assert (root / "s" / "lock").exists()
    lock.release()


def test_many_starts_at_once_make_one_sweep(project: Path) -> None:
    written: list[Path] = []
    refused: list[Exception] = []
    all_have_tried = threading.Barrier(4)

    def start() -> None:
        try:
            session = write(project)
        except (LockedError, ManifestError) as error:
            refused.append(error)
            all_have_tried.wait(60)
        else:
            all_have_tried.wait(60)
            written.append(session.folder.manifest)
            session.release()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert written == [project / "runs" / "s" / "manifest.db"]
    assert written[0].exists()
    assert {type(error) for error in refused} == {LockedError}


def test_nothing_is_started_where_nothing_waits(project: Path) -> None:
    session = write(project)
    for number in range(3):
        run(session.manifest, number)
    session.release()
    again = plan_sweep(
        project / "runs",
        Plan(),
        project,
        None,
        RunLimits(),
        lambda: pytest.fail("a cluster"),  # type: ignore[arg-type]
    )
    assert again.executor is None
    again.release()


def test_reopening_asks_for_what_failed(project: Path) -> None:
    session = write(project)
    run(session.manifest, 0, FAILURE)
    session.release()
    again = hold(session.folder)
    asked = reopen(again, [trial_id(0)], {}, Machine)
    assert asked == 1
    assert again.executor is not None
    again.release()
    with Reader(session.folder) as reader:
        assert reader.counts() == {State.PENDING: 3}


def test_a_reader_at_the_end_leaves_no_log(project: Path) -> None:
    session = write(project)
    with Reader(session.folder):  # as the tracker, which looks a few times a second
        session.release()
    with Reader(session.folder):
        assert list(session.folder.path.glob("manifest.db-*"))
    settle(session.folder)
    assert not list(session.folder.path.glob("manifest.db-*"))
    with Reader(session.folder) as reader:
        assert reader.counts() == {State.PENDING: 3}
        assert not list(session.folder.path.glob("manifest.db-*"))


def test_a_request_to_a_dead_coordinator_does_not_stop_the_next(project: Path) -> None:
    session = write(project)
    session.release()
    (session.folder.requests / "1.json").write_text('{"kind": "stop"}')
    again = hold(session.folder)
    assert list(session.folder.requests.iterdir()) == []
    again.release()


def test_nothing_is_written_to_a_sweep_that_another_machine_has_taken_over(project: Path, tmp_path: Path) -> None:
    """A network file system, where a lock may not reach the other one."""
    session = write(project)
    run(session.manifest, 0, FAILURE)
    session.release()
    table = tmp_path / "mounts"
    table.write_text("server:/x / nfs rw 0 0\n")
    again = hold(session.folder, lock.Machine(mounts=table))
    theirs = {**json.loads(session.folder.lock.read_text()), "host": "b", "boot": "b"}
    session.folder.lock.write_text(json.dumps(theirs))
    with pytest.raises(LockedError, match="on b"):
        reopen(again, [trial_id(0)], {}, Machine)
    again.release()
    assert json.loads(session.folder.lock.read_text()) == theirs
    with Reader(session.folder) as reader:
        assert reader.counts() == {State.FAILED: 1, State.PENDING: 2}


class Other(Plan):
    """Trials 2 and 3."""

    def trial(self, number: int) -> TrialSpec:
        return trial_spec(number + 2)


def test_what_leaves_the_plan_is_said_before_it_starts(project: Path) -> None:
    session = write(project)
    run(session.manifest, 0)
    session.release()
    again = write(project, Other(count=2))
    assert again.notes == [
        "2 trials of the last plan (1 done) are not in this one: orchestrate trials s --all shows them; "
        "--add keeps them in the plan"
    ]
    again.release()


def test_the_trials_of_the_last_plan_can_stay(project: Path) -> None:
    session = write(project)
    run(session.manifest, 0)
    session.release()
    limits = RunLimits(add=True)
    plan_sweep(project / "runs", Other(count=2), project, None, limits, lambda: Machine(cpus=1)).release()  # type: ignore[arg-type]
    with Reader(session.folder) as reader:
        assert [row.trial_id for row in reader.trials()] == [trial_id(number) for number in (2, 3, 0, 1)]
        assert [row.position for row in reader.trials()] == [0, 1, 2, 3]
        assert reader.counts() == {State.SUCCEEDED: 1, State.PENDING: 3}
        found = reader.plan()
        assert found is not None
        assert found.total == 4
        assert sweep_command(found, session.folder).endswith(" --add"), "the command that goes on keeps them too"


def test_the_same_command_with_add_brings_back_what_it_took_out(project: Path) -> None:
    """As the note says, which comes when the plan is written."""

    def planned(plan: Plan, add: bool) -> list[str]:
        session = plan_sweep(project / "runs", plan, project, None, RunLimits(add=add), lambda: Machine(cpus=1))  # type: ignore[arg-type]
        session.release()
        with Reader(session.folder) as reader:
            return [row.trial_id for row in reader.trials()]

    first, other = [trial_id(number) for number in (0, 1)], [trial_id(number) for number in (2, 3)]
    assert planned(Plan(count=2), add=False) == first
    assert planned(Other(count=2), add=False) == other
    assert planned(Other(count=2), add=False) == other
    assert planned(Other(count=2), add=True) == [*other, *first]
    assert planned(Other(count=2), add=False) == other
    assert planned(Other(count=3), add=True) == [*other, trial_id(4)], "another plan keeps the last one's only"
    assert planned(Other(count=3), add=True) == [*other, trial_id(4)], "as when the sweep goes on after a crash"


def test_a_plan_of_another_trainer_hides_no_result_in_silence(project: Path) -> None:
    (project / "other.py").write_text("def train(cfg): pass\n")
    write(project).release()
    other = Other(spec=sweep_spec(trainer="other:train"), count=2)
    with pytest.raises(ConfigError, match=r"--add: sweep\.trainer \(other:train\): the trials of the last plan are of"):
        plan_sweep(project / "runs", other, project, None, RunLimits(add=True), lambda: Machine(cpus=1))  # type: ignore[arg-type]
    session = write(project, other)
    assert session.notes[0].endswith(
        "they are of another trainer, train:train (sweep.name=… starts a sweep of its own)"
    )
    session.release()


WAITS = """
import os, time
from pathlib import Path
def train(cfg, run):
    Path(cfg["here"], "pid").write_text(str(os.getpid()))
    while True:
        print("working", flush=True)
        time.sleep(0.01)
"""


class Waiting(Plan):
    def trial(self, number: int) -> TrialSpec:
        return trial_spec(number, config={"here": os.getcwd()})


@pytest.mark.parametrize("fate", ["deleted", "moved", "replaced"])
@pytest.mark.fault(
    "disk", "the user's runs/ is deleted, moved or replaced", "while a trial runs", "the sweep ends at once"
)
def test_a_folder_that_is_not_there_any_more_ends_the_sweep(project: Path, fate: str) -> None:
    """Nothing is written into what is in its place."""
    (project / "train.py").write_text(WAITS)
    session = write(project, Waiting(count=2))
    kept, other = project / "kept", project / "other"

    def lose(_: object, transitions: list[Transition]) -> None:
        if any(change.state is State.RUNNING for change in transitions):
            until((project / "pid").exists)
            (project / "runs").rename(kept)
            if fate == "deleted":
                shutil.rmtree(kept)
            if fate == "replaced":
                write(project).release()
                shutil.copytree(project / "runs", other)

    with pytest.raises(ManifestError, match="was deleted, moved or replaced while the sweep ran"):
        drive(session, RunLimits(), lose)
    session.release()
    assert not Path("/proc", (project / "pid").read_text()).exists()
    if fate == "replaced":
        assert files(project / "runs") == files(other)
    else:
        assert not (project / "runs").exists()
    if fate != "deleted":
        with Reader(SweepFolder(kept / "s")) as reader:
            assert reader.counts() == {State.RUNNING: 1, State.PENDING: 1}


WRITES = """
from pathlib import Path
def train(cfg):
    Path(__file__).with_name("result.csv").touch()
"""


def test_what_is_written_beside_the_code_is_noted_and_no_code(project: Path) -> None:
    (project / "train.py").write_text(WRITES)
    session = write(project, Plan(count=1))
    notes: list[str] = []
    drive(session, RunLimits(), lambda coordinator, _: notes.extend(coordinator.warnings))
    session.release()
    tree = session.folder.code / str(session.plan and session.plan.provenance["tree"])
    assert f"result.csv in {tree}: written by a trial beside its code; no part of the code" in notes
    again = write(project, Plan(count=1))
    assert again.plan is not None
    assert again.plan.provenance["tree"] == tree.name
    again.release()


def test_code_that_has_changed_since_is_not_run_again(project: Path) -> None:
    session = write(project)
    run(session.manifest, 0, FAILURE)
    session.release()
    (session.folder.code / str(session.plan and session.plan.provenance["tree"]) / "train.py").write_text("x = 100\n")
    again = hold(session.folder)
    with pytest.raises(ManifestError, match=r"the copy of the code has changed: train\.py"):
        reopen(again, [trial_id(0)], {}, Machine)
    again.release()


def test_what_git_cannot_say_is_told_and_recorded(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".git").mkdir()
    monkeypatch.setenv("PATH", "/no/such/folder")
    session = write(project)
    assert len(session.notes) == 2
    assert all("git cannot be run" in note for note in session.notes)
    assert session.plan is not None
    assert session.plan.provenance["problems"] == [session.notes[1]]
    session.release()


NEEDS = """
import os
AT_IMPORT = os.environ.get("A_TOKEN")
def train(cfg, run):
    assert AT_IMPORT == os.environ["A_TOKEN"] == cfg.token
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_variables_reach_trials_and_their_values_no_file(
    project: Path, monkeypatch: pytest.MonkeyPatch, start: Any
) -> None:
    (project / "train.py").write_text(NEEDS)
    monkeypatch.setenv("A_TOKEN", "hunter2")
    spec = sweep_spec(trainer="train:train", objective=None, env=("A_TOKEN", "NOT_SET"), start=start)
    session = write(project, OneWithToken(spec=spec, count=1))
    assert session.notes == ["sweep.env: not set in this shell, so trials have what their node has: NOT_SET"]
    executor = session.executor
    assert isinstance(executor, Machine)
    launch, orders = executor.launch, []
    executor.launch = lambda order, resources: (orders.append(order), launch(order, resources))  # type: ignore[method-assign]

    drive(session, RunLimits(), lambda *_: monkeypatch.delenv("A_TOKEN", raising=False))
    session.release()
    with Reader(session.folder) as reader:
        (row,) = reader.trials()
        assert row.state is State.SUCCEEDED, row.message
    assert dict(orders[0].env) == {"A_TOKEN": "hunter2"}
    assert "hunter2" not in repr(orders[0])
    for path in (project / "runs").rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path


class OneWithToken(Plan):
    def trial(self, number: int) -> TrialSpec:
        return trial_spec(number, config={"token": "${oc.env:A_TOKEN}"}, references={"token": "${oc.env:A_TOKEN}"})
