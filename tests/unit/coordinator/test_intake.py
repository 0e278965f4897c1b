"""Whatever a trial or a node tells, it is recorded, or left out and counted; it never ends the sweep."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.coordinator.intake import accept, accept_rows
from orchestrator.model.events import Batch, Ended, Event, Failure, Filed, Logged, Noticed, Reported, Restored, Saved
from orchestrator.model.order import Checkpoint
from orchestrator.model.sweep import State
from orchestrator.node.shared.journal import JournalReader
from tests.unit.coordinator.support import DONE, STARTED, Scene
from tests.unit.manifests import trial_id

ODD = os.fsdecode(b"caf\xe9.png")  # a lone surrogate, as Python makes of a file name that is not UTF-8


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "{", "null", '{"a": "x"}', '{"a": [1]}', '{"a": null}', '{"a": 9223372036854775808}', "[" * 100_000],
)
def test_a_row_that_is_no_row_is_counted(text: str) -> None:
    assert accept_rows([(0, 1.0, text), (1, 1.0, '{"a":1}')]) == ([(1, 1.0, '{"a":1}')], [{"a": 1}])


@pytest.mark.parametrize("step", [-1, 2**63, 2**70])
def test_a_step_beyond_64_bits_is_counted(step: int) -> None:
    assert accept_rows([(step, 1.0, '{"a":1}')]) == ([], [])


def test_numbers_that_are_not_finite_are_kept() -> None:
    text = '{"a":"NaN","b":"-Infinity","c":0.5,"d":3}'
    assert accept_rows([(0, 1.0, text)]) == ([(0, 1.0, text)], [json.loads(text)])


PIECES = st.lists(
    st.sampled_from(
        ['{"a":1', '"b":2}', '{"', '"}', ":1}", "},", "\n", '{"c":0.5}', '{"c":[', "]}", ",", "{}", "9" * 20]
    ),
    max_size=5,
).map("".join)


@given(st.lists(st.tuples(st.integers(-1, 2**63), st.floats(), PIECES | st.just('{"loss":0.5,"step":3}')), max_size=5))
def test_many_rows_are_taken_as_each_alone(rows: list[tuple[int, float, str]]) -> None:
    """Texts that are no row by themselves, but together look like some, too."""
    alone = [accept_rows([row]) for row in rows]
    assert accept_rows(rows) == ([row for taken, _ in alone for row in taken], [each for _, ms in alone for each in ms])
    for _, _, text in accept_rows(rows)[0]:
        json.loads(text)


def test_odd_names_are_recorded_and_the_sweep_goes_on(scene: Callable[..., Scene]) -> None:
    """Each of these used to end the coordinator with a traceback, on every rerun."""
    sweep = scene(trials=2)
    row = json.dumps({ODD: 0.5, "loss": 0.5})
    failure = Failure("ValueError", ODD, f"{ODD}:3", f"Traceback {ODD}")
    sweep.tell(0, STARTED, Noticed(ODD), Reported(((0, 1.0, row), (2**63, 1.0, row), (1, 1.0, "torn"))), DONE)
    sweep.tell(1, STARTED, Saved(Checkpoint(2**63, "checkpoints/x"), 1.0), Ended(2.0, exit_code=1, failure=failure))
    assert sweep.states() == [State.SUCCEEDED, State.FAILED]
    assert sweep.reader.series(trial_id(0)) == {0: {"caf\\udce9.png": 0.5, "loss": 0.5}}
    assert sweep.reader.notices(trial_id(0)) == [
        "caf\\udce9.png",
        "2 rows were lost: not readable as metrics",
    ]
    (attempt,) = sweep.reader.attempts(trial_id(1))
    assert attempt.message == "ValueError: caf\\udce9.png"
    assert attempt.place == "caf\\udce9.png:3"


# ---------------------------------------------------------------- anything at all

NUMBERS = st.integers(-(2**70), 2**70)
TEXTS = st.text(st.characters(), max_size=8) | st.just(ODD)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.tuples(NUMBERS, st.floats(), st.one_of(TEXTS, JSON.map(json.dumps)))
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.just(STARTED),
    st.lists(ROWS, min_size=1, max_size=3).map(lambda rows: Reported(tuple(rows))),
    st.binary(max_size=8).map(Logged),
    st.builds(Noticed, TEXTS),
    st.builds(Saved, st.builds(Checkpoint, NUMBERS, TEXTS), st.floats(0, 1e9)),
    st.builds(Restored, NUMBERS, TEXTS, st.floats(0, 1e9)),
    st.builds(Filed, st.sampled_from(["files/a", "../../a", "/etc/a", "files/../../../a"]), st.binary(max_size=4)),
    st.builds(Ended, st.floats(0, 1e9), exit_code=st.sampled_from([0, 1, None]), detail=TEXTS, stack=TEXTS),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    batches=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(-1, 5), st.lists(EVENTS, max_size=4)), max_size=6
    )
)
def test_no_order_of_events_ends_the_sweep(
    scene: Callable[..., Scene], batches: list[tuple[int, int, int, list[Event]]]
) -> None:
    sweep = scene(trials=2)
    for trial, attempt, seq, events in batches:
        sweep.executor.batches.append(Batch(trial_id(trial), attempt, seq, tuple(events)))
        sweep.tick()
    assert len(sweep.states()) == 2


LINES = st.one_of(
    st.binary(max_size=30),
    st.tuples(st.sampled_from("RNSTELFXD"), JSON).map(lambda pair: f"{pair[0]}\t{json.dumps(pair[1])}".encode()),
    ROWS.map(lambda row: f"R\t{row[0]}\t{row[1]}\t{row[2]}".encode("utf-8", "backslashreplace")),
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, max_size=5))
def test_a_journal_of_any_bytes_is_read(tmp_path: Path, lines: list[bytes]) -> None:
    (tmp_path / "journal").write_bytes(b"".join(line + b"\n" for line in lines))
    with (tmp_path / "journal").open("rb") as file:
        reader = JournalReader(file.fileno())
        while (entries := reader.read()) is not None:
            for entry in entries:
                check(entry)


def check(entry: Any) -> None:
    if isinstance(entry, Reported):
        rows, metrics = accept_rows(entry.rows)
        assert len(rows) == len(metrics) <= len(entry.rows)
    elif isinstance(entry, (Noticed, Saved, Restored)):
        accept(entry)
