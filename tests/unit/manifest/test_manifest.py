"""The manifest keeps what it was told, whatever happens, and tells it to any number of readers."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.decide.standing import Standing
from orchestrator.errors import ManifestError
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.query import Query
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Ended, Outcome, Restored
from orchestrator.model.order import Checkpoint
from orchestrator.model.sweep import Objective, Resources, Retries, Search, State, TrialSpec
from tests.unit import manifests
from tests.unit.manifests import (
    FAILURE,
    LOSS,
    LOST,
    SUCCESS,
    begin,
    end,
    plan,
    report,
    run,
    sweep_spec,
    trial_id,
    trial_spec,
)

RETRIED = Outcome(State.LOST, "lost_worker", "gone", retry=True)
CANCELLED = Outcome(State.CANCELLED, "cancelled")


def states(reader: Reader) -> list[State]:
    """States of the current plan's trials, in its order."""
    return [row.state for row in reader.trials()]


def due(manifest: Manifest, number: int) -> list[str]:
    return [waiting.spec.trial_id for waiting in manifest.trials.due(number, -1, 1000)]


@contextmanager
def undone(manifest: Manifest) -> Iterator[None]:
    """A transaction that fails after all."""
    with suppress(ZeroDivisionError), manifest.transaction():
        yield
        raise ZeroDivisionError


def query(folder: SweepFolder, sql: str) -> list[tuple[object, ...]]:
    """As a user of the documented views does it, with SQLite alone."""
    with closing(sqlite3.connect(folder.manifest)) as connection:
        return connection.execute(sql).fetchall()


# ---------------------------------------------------------------- what is written stays


def test_a_transaction_is_durable_or_nothing(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(1)])
    key = manifests.key_of(manifest, 1)
    with undone(manifest):
        manifest.attempts.open(manifests.opening(key))
        assert len(manifest.attempts.of(key)) == 1
    assert reader.attempts(trial_id(1)) == []
    begin(manifest, 1)
    assert [row.state for row in reader.attempts(trial_id(1))] == [State.RUNNING]


def test_what_was_planned_comes_back_as_it_was(manifest: Manifest, reader: Reader) -> None:
    spec = sweep_spec(
        axes=[{"x": [1, math.inf]}, {"model": {"lstm": {}}}],
        exclude=({"x": 1},),
        ignore=("paths.*",),
        secrets=("token",),
        resources={"gpus": "${model.gpus}"},
        retries=Retries(1, 2),
        search=Search("random", 10, 7),
        objective=Objective("valid/acc", "max", "best"),
        tracking={"wandb": False},
    )
    asked = Resources(gpus=0.5, cpus="auto", memory=2**40, custom={"licence": 1}, labels={"zone": "north"})
    trial = trial_spec(1, references={"paths.data": "${oc.env:DATA}"}, resources=asked, seed=2**62)
    number = plan(manifest, [trial], spec=spec)
    found = reader.plan()
    assert found is not None
    assert found.spec.objective == spec.objective
    assert (found.spec.retries, found.spec.search, found.spec.exclude) == (spec.retries, spec.search, spec.exclude)
    assert (found.file, found.argv, found.code, found.cwd) == ("conf/sweep.yaml", ("x=1,2",), "code-1", "/work")
    assert (found.total, found.excluded, found.duplicates, found.ended) == (1, 0, 0, None)
    (waiting,) = manifest.trials.due(number, -1, 10)
    assert waiting.spec == trial
    assert manifest.trials.waiting_resources(number, None) == [asked]
    assert manifest.trials.waiting_resources(number, 0) == []
    assert manifest.trials.waiting_resources(number + 1, None) == []
    assert manifest.trials.waiting_resources(number + 1, None, [trial_id(1)]) == [asked]


def test_text_that_is_no_unicode_is_refused_in_words(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match=r"no valid Unicode: .*caf\\udce9") as raised:
        plan(manifest, [trial_spec(1, config={"name": os.fsdecode(b"caf\xe9")})])
    assert "rename the file or folder, or change the value" in str(raised.value)


def test_a_whole_number_beyond_64_bits_is_refused_in_words(manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match="too large"):
        plan(manifest, [trial_spec(1, seed=2**64)])
    assert manifest.plans.current() is None


def test_a_trial_that_is_planned_again_keeps_its_attempts(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(1), trial_spec(2)])
    run(manifest, 1, loss=0.5)
    second = plan(manifest, [trial_spec(3), trial_spec(1)])
    assert [(row.trial_id, row.state) for row in reader.trials()] == [
        (trial_id(3), State.PENDING),
        (trial_id(1), State.SUCCEEDED),
    ]
    assert due(manifest, second) == [trial_id(3)]
    assert reader.counts() == {State.PENDING: 1, State.SUCCEEDED: 1}
    everything = list(reader.trials(Query(everything=True)))
    assert [(row.trial_id, row.current) for row in everything][-1] == (trial_id(2), False)
    assert {row.trial_id for row in reader.statuses()} == {trial_id(number) for number in (1, 2, 3)}


OTHER = [Resources(gpus=1, cpus=2), Resources(gpus=0, cpus=1)]


@pytest.mark.parametrize("ignore", [(), ("noise",)])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_plan_holds_its_trials_whatever_the_one_before_held(data: st.DataObject, ignore: tuple[str, ...]) -> None:
    """Trials that are moved at once, one by one, or put in: what is read is what was asked for."""
    one = st.tuples(st.integers(0, 5), st.sampled_from(OTHER), st.sampled_from([{}, {"y": 1}, {"y": True}]))
    plans = data.draw(st.lists(st.lists(one, unique_by=lambda each: each[0]), min_size=2, max_size=4))
    with tempfile.TemporaryDirectory(dir=manifests.quick()) as root:
        folder = manifests.create(Path(root))
        with closing(Manifest.open(folder)) as manifest, closing(Reader(folder)) as reader:
            for turn, asked in enumerate(plans):
                specs = [
                    trial_spec(
                        number,
                        resources=resources,
                        overrides={"x": number, **more},
                        config={"x": number, "noise": turn if ignore else 0},
                    )
                    for number, resources, more in asked
                ]
                number = plan(manifest, specs, spec=sweep_spec(ignore=ignore))
                waiting = [repr(due.spec) for due in manifest.trials.due(number, -1, 10)]
                assert waiting == list(map(repr, specs)), "True is not 1"
                assert [row.position for row in reader.trials()] == list(range(len(specs)))
                seen = {row.trial_id for row in reader.trials(Query(everything=True))}
                assert seen == {trial_id(number) for each in plans[: turn + 1] for number, *_ in each}


def test_the_same_plan_again_writes_nothing_for_each_trial(manifest: Manifest) -> None:
    trials = [trial_spec(number) for number in range(100)]
    plan(manifest, trials)
    said: list[str] = []
    manifest._db.set_trace_callback(said.append)
    plan(manifest, trials)
    assert len(said) < 20
    plan(manifest, [*trials, trial_spec(100)])
    assert len(said) < 40


def test_a_closed_attempt_stays_as_it_ended(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(1)])
    key = run(manifest, 1)
    end(manifest, key, 1, FAILURE)
    assert states(reader) == [State.SUCCEEDED]


# ---------------------------------------------------------------- what is to run


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (SUCCESS, State.SUCCEEDED),
        (FAILURE, State.FAILED),
        (LOST, State.LOST),
        (CANCELLED, State.CANCELLED),
        (Outcome(State.STOPPED, "stopped"), State.STOPPED),
        (RETRIED, State.PENDING),
        (Outcome(State.CANCELLED, "cancelled", retry=True), State.PENDING),
    ],
)
def test_states_follow_from_the_last_attempt(
    manifest: Manifest, reader: Reader, outcome: Outcome, state: State
) -> None:
    number = plan(manifest, [trial_spec(1)])
    assert states(reader) == [State.PENDING]
    key = begin(manifest, 1)
    assert states(reader) == [State.RUNNING]
    assert due(manifest, number) == []
    end(manifest, key, 1, outcome)
    assert states(reader) == [state]
    assert reader.counts() == {state: 1}
    assert due(manifest, number) == ([trial_id(1)] if state is State.PENDING else [])
    assert query(manifest.folder, "SELECT state FROM trials") == [(state.value,)]


def test_resubmitted_trials_wait_again(manifest: Manifest, reader: Reader) -> None:
    number = plan(manifest, [trial_spec(each) for each in (1, 2, 3, 4)])
    key = run(manifest, 1, FAILURE)
    begin(manifest, 2)
    run(manifest, 3)
    with manifest.transaction():
        asked = manifest.trials.resubmit([trial_id(each) for each in (1, 2, 3, 4, 5)])
    assert asked == [trial_id(1), trial_id(3)]
    assert due(manifest, number) == [trial_id(1), trial_id(3), trial_id(4)]
    assert reader.failed() == []
    assert manifest.attempts.since_asked(key, before=2) == []
    run(manifest, 1, FAILURE, attempt=2)
    assert [row.attempt for row in manifest.attempts.since_asked(key, before=3)] == [2]
    assert states(reader)[0] is State.FAILED


def test_a_trial_of_another_trainer_is_not_run_with_this_one(manifest: Manifest) -> None:
    plan(manifest, [trial_spec(1)])
    run(manifest, 1, FAILURE)
    plan(manifest, [trial_spec(2)])
    assert manifest.trials.resubmit([trial_id(1)]) == [trial_id(1)]
    plan(manifest, [trial_spec(2)], spec=sweep_spec(trainer="other:train"))
    assert manifest.trials.resubmit([trial_id(1)]) == []


def test_reruns(manifest: Manifest) -> None:
    trials = [trial_spec(each) for each in range(6)]
    plan(manifest, trials)
    for number, outcome in enumerate([SUCCESS, FAILURE, LOST, Outcome(State.STOPPED, "stopped")]):
        run(manifest, number, outcome)
    begin(manifest, 4)
    number = plan(manifest, trials, code="code-2")
    waiting: dict[str, list[str]] = {}
    for which in ("stale", "failed", "all"):
        with undone(manifest):
            manifest.trials.rerun(number, which)
            waiting[which] = due(manifest, number)
    assert waiting["stale"] == [trial_id(0), trial_id(5)]
    assert waiting["failed"] == [trial_id(1), trial_id(2), trial_id(5)]
    assert waiting["all"] == [trial_id(each) for each in (0, 1, 2, 3, 5)]


def test_what_was_cancelled_is_resumed_by_the_next_plan(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(1), trial_spec(2)])
    run(manifest, 1, CANCELLED)
    run(manifest, 2)
    assert states(reader) == [State.CANCELLED, State.SUCCEEDED]
    plan(manifest, [trial_spec(1), trial_spec(2)])
    assert states(reader) == [State.PENDING, State.SUCCEEDED]


def test_a_new_value_of_an_ignored_key_is_for_what_is_still_to_run(manifest: Manifest, reader: Reader) -> None:
    spec = sweep_spec(ignore=("data",))
    plan(manifest, [trial_spec(each, config={"data": "old"}) for each in range(3)], spec=spec)
    run(manifest, 0)
    run(manifest, 1, FAILURE)
    plan(manifest, [trial_spec(each, config={"data": "new"}) for each in range(3)], spec=spec)
    assert [row.config["data"] for row in reader.trials()] == ["old", "new", "new"]


def specs(manifest: Manifest) -> list[TrialSpec]:
    """Each trial as its next attempt would run it."""
    return [found for number in range(3) if (found := manifest.trials.spec(trial_id(number)))]


def test_what_waits_runs_as_the_latest_plan_says(manifest: Manifest) -> None:
    """Another key was named as `sweep.seed`: neither the ids nor the configs of the trials change by that."""
    plan(manifest, [trial_spec(each, seed=1, config_id="one") for each in range(3)])
    run(manifest, 0)
    run(manifest, 1, FAILURE)
    number = plan(manifest, [trial_spec(each, seed=7, config_id="seven") for each in range(3)])
    assert [spec.config_id for spec in specs(manifest)] == ["seven"] * 3
    assert [spec.seed for spec in specs(manifest)] == [1, 7, 7], "a result that stands says what it was made with"
    assert manifest.trials.reseeded(number) == 1
    with undone(manifest):
        manifest.trials.rerun(number, "failed")
        assert [spec.seed for spec in specs(manifest)] == [1, 7, 7]
    for which in ("stale", "all"):
        with undone(manifest):
            manifest.trials.rerun(number, which)
            assert due(manifest, number)[0] == trial_id(0)
            assert [spec.seed for spec in specs(manifest)] == [7, 7, 7]
    with manifest.transaction():
        manifest.trials.resubmit([trial_id(0)])
    plan(manifest, [trial_spec(each, seed=8) for each in range(3)])
    assert [spec.seed for spec in specs(manifest)] == [8, 8, 8], "what was to run again has not run"


def test_a_rerun_takes_the_new_value_of_an_ignored_key(manifest: Manifest) -> None:
    spec = sweep_spec(ignore=("data",))
    plan(manifest, [trial_spec(0, config={"data": "old"})], spec=spec)
    run(manifest, 0)
    number = plan(manifest, [trial_spec(0, config={"data": "new"})], spec=spec)
    assert manifest.trials.reseeded(number) == 0, "it is no part of the trial"
    with manifest.transaction():
        manifest.trials.rerun(number, "all")
    (found,) = specs(manifest)
    assert found.config["data"] == "new"


def test_a_reference_that_was_written_otherwise_is_what_the_config_shows(manifest: Manifest) -> None:
    for text in ("${oc.env:OLD_TOKEN}", "${oc.env:NEW_TOKEN}"):
        plan(manifest, [trial_spec(0, config={"token": text}, references={"token": text})])
    (found,) = specs(manifest)
    assert (found.config["token"], found.references["token"]) == (text, text)


def test_recovery_closes_what_a_dead_coordinator_left(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(each) for each in range(4)])
    run(manifest, 0)
    for number in (1, 2, 3):
        begin(manifest, number)
    cursor = max(row.changed for row in reader.changed_attempts(0))
    with manifest.transaction():
        assert manifest.attempts.recover(200.0) == 3
    assert reader.counts() == {State.SUCCEEDED: 1, State.PENDING: 3}
    changed = reader.changed_attempts(cursor)
    assert {(row.state, row.cause, row.ended) for row in changed} == {(State.LOST, "lost_coordinator", 200.0)}
    assert len({row.changed for row in changed}) == 3, "a follower that reads in portions must miss none"


def test_the_time_after_a_coordinator_has_died_is_no_part_of_an_attempt(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(0), trial_spec(1)])
    begin(manifest, 1)
    report(manifest, begin(manifest, 0), 1, 60, loss=1.0)  # a minute after its start
    with manifest.transaction():
        manifest.attempts.recover(manifests.NOW + 1e6)
    assert [reader.attempts(trial_id(number))[0].seconds for number in (0, 1)] == [61, 61], "they ended together"


def test_followers_see_each_change_once_in_portions(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(each) for each in range(5)])
    keys = [begin(manifest, number) for number in range(5)]
    for key in keys:
        end(manifest, key)
    seen, cursor = [], 0
    while portion := reader.changed_attempts(cursor, limit=2):
        cursor = portion[-1].changed
        seen += [row.trial_id for row in portion]
    assert sorted(seen) == sorted(trial_id(each) for each in range(5))


def test_the_cursor_survives_a_restart(folder: SweepFolder) -> None:
    with closing(Manifest.open(folder)) as first:
        plan(first, [trial_spec(1)])
        run(first, 1, RETRIED)
        uid = first.uid
    with closing(Manifest.open(folder)) as second, Reader(folder) as reader:
        before = reader.changed_attempts(0)[-1].changed
        begin(second, 1, 2)
        assert second.uid == uid == folder.uid.read_text()
        assert reader.changed_attempts(before)[-1].attempt == 2


# ---------------------------------------------------------------- measurements


def test_rows_of_a_step_are_merged(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(1)])
    key = begin(manifest, 1)
    report(manifest, key, 1, 0, loss=1.0, acc=0.1)
    report(manifest, key, 1, 1, loss=0.5)
    report(manifest, key, 1, 0, acc=0.2)
    assert reader.series(trial_id(1)) == {0: {"loss": 1.0, "acc": 0.2}, 1: {"loss": 0.5}}
    assert [row.step for row in reader.reports(0)] == [0, 1, 0]
    assert reader.last_report() == reader.reports(0)[-1].id


def test_a_retry_from_a_checkpoint_continues_its_series(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(1)])
    key = begin(manifest, 1)
    for step in range(4):
        report(manifest, key, 1, step, loss=10.0 + step)
    end(manifest, key, 1, RETRIED)
    begin(manifest, 1, 2, lineage=1)
    with manifest.transaction():
        manifest.attempts.restored(key, 2, Restored(1, "checkpoints/1-step-1.state", 1.0), 1)
    report(manifest, key, 2, 2, loss=2.0)
    assert {step: row["loss"] for step, row in reader.series(trial_id(1)).items()} == {0: 10, 1: 11, 2: 2}
    assert query(manifest.folder, "SELECT attempt, step FROM reports ORDER BY id") == [(1, 0), (1, 1), (2, 2)]
    assert len(reader.reports(0)) == 5, "superseded rows stay in the table"
    assert [(row.attempt, row.step) for row in reader.lineage_reports(trial_id(1), 1)] == [(1, 0), (1, 1), (2, 2)]


def test_a_retry_from_scratch_begins_a_series(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(1)])
    key = begin(manifest, 1)
    report(manifest, key, 1, 0, loss=9.0)
    end(manifest, key, 1, RETRIED)
    begin(manifest, 1, 2)
    assert reader.series(trial_id(1)) == {}
    assert reader.exactly(trial_id(1)).metrics == {}
    report(manifest, key, 2, 0, loss=1.0)
    assert reader.series(trial_id(1)) == {0: {"loss": 1.0}}
    assert [row.metrics["loss"] for row in reader.lineage_reports(trial_id(1), 1)] == [9.0]


def test_an_attempt_that_goes_on_begins_with_the_last_metrics(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(1)])
    key = begin(manifest, 1)
    report(manifest, key, 1, 0, loss=9.0)
    end(manifest, key, 1, RETRIED)
    begin(manifest, 1, 2, lineage=1)
    assert (reader.exactly(trial_id(1)).metrics, reader.exactly(trial_id(1)).objective) == ({"loss": 9.0}, 9.0)
    with manifest.transaction():
        manifest.attempts.new_lineage(key, 2, 1.0)
    assert reader.attempts(trial_id(1))[-1].lineage == 2


def test_the_checkpoint_offered_is_that_of_the_latest_attempt_that_saved(manifest: Manifest) -> None:
    plan(manifest, [trial_spec(1)])
    key = begin(manifest, 1)
    with manifest.transaction():
        manifest.attempts.saved(key, 1, Checkpoint(5, "checkpoints/5"), 1.0)
        manifest.attempts.saved(key, 1, Checkpoint(10, "checkpoints/10"), 2.0)
    assert manifest.attempts.checkpoints(key, 1) == [Checkpoint(10, "checkpoints/10"), Checkpoint(5, "checkpoints/5")]
    assert manifest.attempts.checkpoints(key, 2) == []
    end(manifest, key, 1, RETRIED)
    begin(manifest, 1, 2, lineage=1)
    with manifest.transaction():
        manifest.attempts.restored(
            key, 2, Restored(5, "checkpoints/1-step-5.state", 1.0), 1
        )  # the newer state could not be read
        manifest.attempts.saved(key, 2, Checkpoint(7, "checkpoints/7"), 3.0)
    assert manifest.attempts.checkpoints(key, 1) == [Checkpoint(7, "checkpoints/7"), Checkpoint(5, "checkpoints/5")]


def test_numbers_that_are_not_finite_are_kept(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(1, config={"clip": math.inf}, overrides={"clip": math.inf})])
    key = begin(manifest, 1)
    with manifest.transaction():
        text = '{"loss":"NaN","up":"Infinity","down":"-Infinity"}'
        manifest.attempts.reported(key, 1, [(0, 1.0, text)])
        manifest.attempts.progressed(key, 1, Standing(LOSS, [(0, json.loads(text))]))
    found = reader.exactly(trial_id(1)).metrics
    assert math.isnan(found["loss"])
    assert (found["up"], found["down"]) == (math.inf, -math.inf)
    assert math.isnan(reader.series(trial_id(1))[0]["loss"])
    assert query(manifest.folder, "SELECT metrics ->> '$.loss' FROM reports") == [("NaN",)]
    assert len(list(reader.trials(Query(where=manifests.where(clip=math.inf))))) == 1
    assert list(reader.trials(Query(where=manifests.where(clip=-math.inf)))) == []


# ---------------------------------------------------------------- any history


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["open", "start", "report", "success", "failure", "retry", "resubmit", "recover", "plan"]),
        st.integers(0, 2),
    ),
    max_size=40,
)


class History:
    """Three trials, and moves that a coordinator could make."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        plan(manifest, [trial_spec(each) for each in range(3)])
        self.keys = [manifests.key_of(manifest, number) for number in range(3)]

    def move(self, kind: str, number: int) -> None:
        manifest, key = self.manifest, self.keys[number]
        earlier = manifest.attempts.of(key)
        last = earlier[-1].attempt if earlier else 0
        with manifest.transaction():
            if kind == "open" and manifest.trials.due_one(trial_id(number)) is not None:
                manifest.attempts.open(manifests.opening(key, last + 1))
            elif kind == "report" and last:
                manifest.attempts.reported(key, last, [(0, 1.0, '{"loss":1.0}')])
            elif kind in ("success", "failure", "retry") and last:
                outcome = {"success": SUCCESS, "failure": FAILURE, "retry": RETRIED}[kind]
                manifest.attempts.close(key, last, outcome, Ended(1.0))
            elif kind == "resubmit":
                manifest.trials.resubmit([trial_id(number)])
            elif kind == "recover":
                manifest.attempts.recover(1.0)
        if kind == "plan":
            plan(manifest, [trial_spec(each) for each in range(number + 1)])


@settings(max_examples=60, deadline=None)
@given(moves=MOVES)
def test_in_any_history_counts_add_up_and_one_attempt_lives(moves: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory(dir=manifests.quick()) as root:
        folder = manifests.create(Path(root))
        with closing(Manifest.open(folder)) as manifest, Reader(folder) as reader:
            history = History(manifest)
            for kind, number in moves:
                history.move(kind, number)
                check(reader, manifest)


def check(reader: Reader, manifest: Manifest) -> None:
    current = reader.plan()
    assert current is not None
    rows = list(reader.trials())
    counts = reader.counts()
    assert sum(counts.values()) == current.total == len(rows)
    assert counts == {state: sum(row.state is state for row in rows) for state in counts}
    waiting = {found.spec.trial_id for found in manifest.trials.due(current.plan, -1, 100)}
    assert waiting == {row.trial_id for row in rows if row.state is State.PENDING}
    for row in rows:
        opened = [attempt for attempt in reader.attempts(row.trial_id) if attempt.state.open]
        assert len(opened) <= 1
        assert row.state.open == bool(opened)


def test_a_config_comes_back_exactly(manifest: Manifest) -> None:
    """What JSON cannot hold included: the trainer gets what the config said."""
    config = {"clip": math.inf, "names": {1: "a", False: "b", None: {"x": -math.inf}}, "cost": {"$float": 3}, "n": 1.0}
    plan(manifest, [trial_spec(1, config=config, overrides={"clip": math.inf})])
    due = manifest.trials.due_one(trial_id(1))
    assert due is not None
    assert due.spec.config == config
    assert str(due.spec.config) == str(config)
    assert due.spec.overrides == {"clip": math.inf}
