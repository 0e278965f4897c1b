"""What is kept of attempts: what each ran with, where its state came from, and in which order things became known."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.decide.standing import Standing
from orchestrator.folder.paths import SweepFolder
from orchestrator.manifest.query import Query
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Restored
from orchestrator.model.order import Checkpoint
from orchestrator.model.rows import Parent
from orchestrator.model.sweep import Resources
from tests.unit import manifests
from tests.unit.manifests import FAILURE, LOSS, LOST, begin, best, end, opening, plan, report, run, trial_id, trial_spec

RETRIED = replace(LOST, retry=True)


def rows_of(folder: SweepFolder, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder.manifest)) as connection:
        return connection.execute(sql).fetchall()


def test_changes_and_reports_share_one_order(manifest: Manifest, folder: SweepFolder) -> None:
    """Each id is given once, in the order in which things became known; nothing is overwritten."""
    plan(manifest, [trial_spec(1), trial_spec(2)])
    first = begin(manifest, 1)
    report(manifest, first, 1, 0, loss=1.0)
    second = begin(manifest, 2)
    report(manifest, first, 1, 1, loss=0.5)
    end(manifest, first)
    end(manifest, second, 1, RETRIED)
    ordered = rows_of(
        folder,
        """SELECT id, trial, event, state FROM change UNION ALL SELECT id, trial, 'report', step FROM report
           ORDER BY id""",
    )
    assert [row[0] for row in ordered] == list(range(1, 9))
    assert [row[1:] for row in ordered] == [
        (first, "opened", "LAUNCHING"),
        (first, "started", "RUNNING"),
        (first, "report", 0),
        (second, "opened", "LAUNCHING"),
        (second, "started", "RUNNING"),
        (first, "report", 1),
        (first, "ended", "SUCCEEDED"),
        (second, "ended", "LOST"),
    ]
    assert rows_of(folder, "SELECT trial, changed FROM attempt ORDER BY trial") == [(first, 7), (second, 8)]
    details = rows_of(folder, "SELECT detail FROM change WHERE event = 'ended' ORDER BY id")
    assert [json.loads(text) for (text,) in details] == [
        {"cause": "", "retry": False},
        {"cause": "lost_worker", "retry": True},
    ]


def test_the_order_goes_on_after_a_restart(folder: SweepFolder) -> None:
    with closing(Manifest.open(folder)) as manifest:
        plan(manifest, [trial_spec(1)])
        key = begin(manifest, 1)
        report(manifest, key, 1, 0, loss=1.0)
    with closing(Manifest.open(folder)) as manifest:
        report(manifest, key, 1, 1, loss=0.5)
        end(manifest, key)
    assert rows_of(folder, "SELECT id FROM report ORDER BY id") == [(3,), (4,)]
    assert rows_of(folder, "SELECT id FROM change ORDER BY id") == [(1,), (2,), (5,)]


def test_an_end_that_comes_too_late_is_no_change(manifest: Manifest, folder: SweepFolder) -> None:
    plan(manifest, [trial_spec(1)])
    key = run(manifest, 1)
    before = rows_of(folder, "SELECT * FROM change")
    end(manifest, key, 1, FAILURE)
    assert rows_of(folder, "SELECT * FROM change") == before


def test_what_an_attempt_ran_with_is_not_rewritten(manifest: Manifest, reader: Reader) -> None:
    """`resubmit --set` changes what is still to run, not what has run."""
    number = plan(manifest, [trial_spec(1, config={"x": 1, "paths": {"data": "/a"}})])
    key = manifests.key_of(manifest, 1)
    given = Resources(gpus=1.0, cpus=4.0, labels={"zone": "north"})
    with manifest.transaction():
        new = opening(key, plan=number, resources=given, deterministic="error", ignored={"paths.data": "/a"})
        manifest.attempts.open(new)
    end(manifest, key, 1, FAILURE)
    changed = trial_spec(1, config={"x": 1, "paths": {"data": "/b"}}, resources=Resources(gpus=2, cpus=1))
    with manifest.transaction():
        manifest.trials.change(manifests.sweep_spec(), [changed])
    (attempt,) = reader.attempts(trial_id(1))
    assert (attempt.plan, attempt.purpose, attempt.deterministic) == (number, "trial", "error")
    assert attempt.resources == {"gpus": 1.0, "cpus": 4.0, "memory": 0, "custom": {}, "labels": {"zone": "north"}} | {
        "alone": ""
    }
    assert attempt.ignored == {"paths.data": "/a"}
    assert reader.trial(trial_id(1)).config["paths"] == {"data": "/b"}


def test_a_restored_state_names_the_attempt_and_step_it_came_from(manifest: Manifest, reader: Reader) -> None:
    """Two attempts saved step 3; the path tells which of the two states was read."""
    plan(manifest, [trial_spec(1)])
    key = begin(manifest, 1)
    for attempt in (1, 2):
        with manifest.transaction():
            manifest.attempts.saved(key, attempt, Checkpoint(3, f"checkpoints/{attempt}-step-3.state"), 1.0)
        end(manifest, key, attempt, RETRIED)
        begin(manifest, 1, attempt + 1, lineage=1)
    with manifest.transaction():
        manifest.attempts.restored(key, 3, Restored(3, "checkpoints/1-step-3.state", 2.0), 1)
    assert [row.parent for row in reader.attempts(trial_id(1))] == [None, None, Parent(key, 1, 3)]


def test_a_decision_says_how_much_was_known(manifest: Manifest, folder: SweepFolder) -> None:
    plan(manifest, [trial_spec(1)])
    with manifest.transaction():
        manifest.attempts.decided("first", {"a": 1}, 5.0)
    key = begin(manifest, 1)
    report(manifest, key, 1, 0, loss=1.0)
    with manifest.transaction():
        manifest.attempts.decided("second", {}, 6.0, key)
    assert rows_of(folder, "SELECT * FROM decision ORDER BY number") == [
        (1, 5.0, "first", None, '{"a":1}', 0, 0),
        (2, 6.0, "second", key, "{}", 3, 2),
    ]


# ---------------------------------------------------------------- attempts that only verify a result

READS: dict[str, Callable[[Manifest, Reader], Any]] = {
    "trials": lambda manifest, reader: list(reader.trials()),
    "progress": lambda manifest, reader: reader.progress(),
    "best": lambda manifest, reader: best(reader, LOSS),
    "running": lambda manifest, reader: reader.running(),
    "failed": lambda manifest, reader: reader.failed(),
    "metric names": lambda manifest, reader: reader.metric_names(),
    "count": lambda manifest, reader: reader.count(Query()),
    "attempts": lambda manifest, reader: [reader.attempts(trial_id(n)) for n in (1, 2)],
    "series": lambda manifest, reader: [reader.series(trial_id(n)) for n in (1, 2)],
    "followed changes": lambda manifest, reader: reader.changed_attempts(0),
    "followed reports": lambda manifest, reader: reader.reports(0),
    "lineage": lambda manifest, reader: reader.lineage_reports(trial_id(1), 1),
    "due": lambda manifest, reader: manifest.trials.due(1, -1, 10),
    "waiting": lambda manifest, reader: manifest.trials.waiting_resources(1, None),
    "budget": lambda manifest, reader: manifest.attempts.since_asked(1, 9),
    "history": lambda manifest, reader: manifest.attempts.of(1),
    "checkpoints": lambda manifest, reader: manifest.attempts.checkpoints(1, 1),
    "succeeded": lambda manifest, reader: manifest.trials.any_succeeded(1),
}


@pytest.fixture
def verified(manifest: Manifest, reader: Reader) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is read before and after attempts of the purpose `verify`: one that failed, and one that runs."""
    plan(manifest, [trial_spec(1), trial_spec(2)])
    key = run(manifest, 1, loss=0.5)
    before = {name: read(manifest, reader) for name, read in READS.items()}
    for attempt in (2, 3):
        with manifest.transaction():
            manifest.attempts.open(opening(key, attempt, lineage=1, purpose="verify"))
            manifest.attempts.reported(key, attempt, [(7, 1.0, '{"loss":0.1,"other":1}')])
            manifest.attempts.progressed(key, attempt, Standing(LOSS, [(7, {"loss": 0.1, "other": 1})]))
            manifest.attempts.saved(key, attempt, Checkpoint(7, f"checkpoints/{attempt}-step-7.state"), 1.0)
        if attempt == 2:
            end(manifest, key, attempt, FAILURE)
    return before, {name: read(manifest, reader) for name, read in READS.items()}


@pytest.mark.parametrize("name", READS)
def test_an_attempt_that_verifies_changes_no_result(verified: tuple[dict[str, Any], dict[str, Any]], name: str) -> None:
    before, after = verified
    assert after[name] == before[name]


def test_numbers_of_attempts_are_given_once_whatever_their_purpose(
    manifest: Manifest, verified: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    assert manifest.attempts.next_number(1) == 4


def test_an_attempt_that_verifies_is_closed_by_recovery(manifest: Manifest, folder: SweepFolder) -> None:
    plan(manifest, [trial_spec(1)])
    key = run(manifest, 1, loss=0.5)
    with manifest.transaction():
        manifest.attempts.open(opening(key, 2, purpose="verify"))
        assert manifest.attempts.recover(9.0) == 1
    assert rows_of(folder, "SELECT state FROM attempt ORDER BY attempt") == [("SUCCEEDED",), ("LOST",)]
    assert manifest.trials.due_one(trial_id(1)) is None
