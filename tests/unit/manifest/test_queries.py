"""Which trials are asked for, and which one is best."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from orchestrator.errors import AmbiguousError, NotFoundError
from orchestrator.manifest.query import Query
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.model.sweep import Objective, State
from tests.unit.manifests import (
    FAILURE,
    begin,
    best,
    end,
    plan,
    report,
    run,
    sweep_spec,
    trial_id,
    trial_spec,
    where,
)

# ---------------------------------------------------------------- best and stale


def test_best(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(each) for each in range(6)])
    for number, loss in enumerate([0.5, 0.2, 0.2, "NaN"]):
        run(manifest, number, loss=loss)
    run(manifest, 4, FAILURE, loss=0.0)
    lowest, highest = best(reader, Objective("loss", "min")), best(reader, Objective("loss", "max"))
    assert lowest is not None
    assert highest is not None
    assert (lowest.trial_id, highest.trial_id) == (trial_id(1), trial_id(0))
    assert best(reader, None) is None
    report(manifest, begin(manifest, 5), 1, 0, loss=0.1)
    lowest = best(reader, Objective("loss", "min"))
    assert lowest is not None
    assert lowest.trial_id == trial_id(1), "what runs is not the winner yet"


def test_best_speaks_of_the_current_plan(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(1), trial_spec(2)])
    run(manifest, 1, loss=0.1)
    run(manifest, 2, loss=0.2)
    plan(manifest, [trial_spec(2)])
    found = best(reader, Objective("loss", "min"))
    assert found is not None
    assert found.trial_id == trial_id(2)


@pytest.mark.parametrize(
    ("objective", "found"),
    [
        (Objective("acc", "max", "best"), 0.9),
        (Objective("acc", "min", "best"), 0.3),
        (Objective("acc", "max", "last"), 0.3),
        (Objective("100%", "max", "last"), 7.0),
        (Objective("nothing", "max", "best"), None),
        (None, None),
    ],
)
def test_a_new_objective_judges_what_is_done(
    manifest: Manifest, reader: Reader, objective: Objective | None, found: float | None
) -> None:
    plan(manifest, [trial_spec(1)])
    key = begin(manifest, 1)
    for step, acc in enumerate([0.4, 0.9, "NaN", 0.3]):
        report(manifest, key, 1, step, loss=1.0, acc=acc, **{"100%": 7.0})
    end(manifest, key)
    assert reader.exactly(trial_id(1)).objective == 1.0
    plan(manifest, [trial_spec(1)], spec=sweep_spec(objective=objective))
    assert reader.exactly(trial_id(1)).objective == found


def test_stale_is_what_succeeded_with_other_code(manifest: Manifest, reader: Reader) -> None:
    trials = [trial_spec(each) for each in range(3)]
    plan(manifest, trials)
    run(manifest, 0)
    run(manifest, 1, FAILURE)
    assert reader.progress().stale == 0
    plan(manifest, trials, code="code-2")
    assert reader.progress().stale == 1
    assert [row.stale for row in reader.trials()] == [True, False, False]
    with manifest.transaction():
        manifest.trials.resubmit([trial_id(0)])
    assert reader.progress().stale == 0
    begin(manifest, 0, 2, code="code-2")
    assert [row.stale for row in reader.trials()] == [False, False, False]
    (first, second) = reader.attempts(trial_id(0))
    assert [found.plan for found in map(reader.plan_of, (first, second)) if found] == [1, 2]


@pytest.mark.fault(
    "coordinator", "the clock is set back", "by a day, between two plans", "plans and attempts keep their order"
)
def test_plans_and_attempts_are_in_the_order_of_their_numbers(manifest: Manifest, reader: Reader) -> None:
    """The clock was set back by a day after the first plan and its attempt."""
    plan(manifest, [trial_spec(0)])
    run(manifest, 0)
    with closing(sqlite3.connect(manifest.folder.manifest)) as clock:
        clock.execute("UPDATE plan SET created = created + 86400")
        clock.execute("UPDATE attempt SET created = created + 86400, started = started + 86400, ended = ended + 86400")
        clock.commit()
    number = plan(manifest, [trial_spec(0)], code="code-2")
    with manifest.transaction():
        manifest.trials.resubmit([trial_id(0)])
    end(manifest, begin(manifest, 0, 2, code="code-2"), 2)
    attempts, current, row = reader.attempts(trial_id(0)), reader.plan(), reader.exactly(trial_id(0))
    assert current is not None
    assert [found.plan for found in map(reader.plan_of, attempts) if found] == [1, number]
    assert (current.plan, row.attempts, row.state, row.stale) == (number, 2, State.SUCCEEDED, False)
    assert [change.attempt for change in reader.changed_attempts(0)] == [1, 2]


# ---------------------------------------------------------------- asking


ODD = ["optimizer@train.opt", "db/engine", "+experiment", "/data.batch_size", "it's", "a]b", "back\\slash", "é ü", "$"]


@pytest.fixture
def asked(manifest: Manifest, reader: Reader) -> Reader:
    """Four trials: options of odd names, nested settings of every kind, metrics to sort by."""
    kinds = [True, None, [0.9, 0.999], {"a": [1, 2.5]}]
    trials = [
        trial_spec(
            number,
            overrides={key: f"{key}-{number}" for key in ODD} | {"lr": 10.0**-number},
            config={"data": {"size": number, "name": str(number)}, "kind": kinds[number], "lr": 10.0**-number},
        )
        for number in range(4)
    ]
    plan(manifest, trials)
    for number, value in enumerate([3.0, "NaN", 1]):
        run(manifest, number, **{"valid/loss": value, "it's \\ odd": number})
    return reader


@pytest.mark.parametrize("key", ODD)
def test_keys_of_any_form_are_found(asked: Reader, key: str) -> None:
    assert [row.trial_id for row in asked.trials(Query(where=where(**{key: f"{key}-2"})))] == [trial_id(2)]


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        ({"data.size": 2}, [2]),
        ({"data.size": "2"}, [2]),
        ({"data.name": 2}, [2]),
        ({"lr": 0.01}, [2]),
        ({"lr": 1}, [0]),
        ({"kind": True}, [0]),
        ({"kind": None}, [1]),
        ({"kind": [0.9, 0.999]}, [2]),
        ({"kind": {"a": [1, 2.5]}}, [3]),
        ({"data.size": 2, "lr": 0.1}, []),
        ({"data.size": 10**30}, []),
        ({"data.name": "' OR 1 --"}, []),
    ],
)
def test_where(asked: Reader, settings: dict[str, object], numbers: list[int]) -> None:
    assert [row.trial_id for row in asked.trials(Query(where=where(**settings)))] == [
        trial_id(number) for number in numbers
    ]


def test_sorting_puts_numbers_first(asked: Reader) -> None:
    def order(metric: str, descending: bool = False) -> list[str]:
        return [row.trial_id for row in asked.trials(Query(sort=metric, descending=descending))]

    assert order("valid/loss") == [trial_id(number) for number in (2, 0, 1, 3)]
    assert order("valid/loss", descending=True) == [trial_id(number) for number in (0, 2, 1, 3)]
    assert order("it's \\ odd", descending=True) == [trial_id(number) for number in (2, 1, 0, 3)]
    assert set(asked.metric_names()) == {"valid/loss", "it's \\ odd"}


def test_states_and_limits(asked: Reader) -> None:
    assert [row.trial_id for row in asked.trials(Query(states=[State.PENDING]))] == [trial_id(3)]
    assert len(list(asked.trials(Query(states=[State.SUCCEEDED], limit=2)))) == 2
    assert list(asked.trials(Query(states=[State.FAILED]))) == []


def test_a_trial_by_the_first_digits_of_its_id(manifest: Manifest, reader: Reader) -> None:
    plan(manifest, [trial_spec(1, trial_id="abc000000000"), trial_spec(2, trial_id="abd000000000")])
    assert reader.trial("abc").trial_id == "abc000000000"
    assert reader.trial("abd000000000").trial_id == "abd000000000"
    with pytest.raises(AmbiguousError, match="abc000000000, abd000000000"):
        reader.trial("ab")
    for wrong in ("x", "a_c", "a%", "abc0000000000"):
        with pytest.raises(NotFoundError, match="no trial begins with"):
            reader.trial(wrong)
