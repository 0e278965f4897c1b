"""What the end of an attempt means, and whether another attempt follows."""

from __future__ import annotations

import itertools
import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.decide import lifecycle
from orchestrator.decide.lifecycle import (
    FREE_LAUNCHES,
    MAX_MESSAGE,
    classify,
    continues,
    next_lineage,
    one_line,
    retried,
)
from orchestrator.model.events import Ended, Failure, Outcome
from orchestrator.model.rows import AttemptRow
from orchestrator.model.sweep import Retries, State


def ended(**facts: Any) -> Ended:
    return Ended(1.0, **facts)


def raised(type_name: str, message: str = "") -> Ended:
    return ended(exit_code=1, failure=Failure(type_name, message, "train.py:88", "Traceback …"))


def attempt(state: State, *, number: int = 1, started: bool = True, cause: str = "", lineage: int = 1) -> AttemptRow:
    return AttemptRow(
        trial_id="a" * 12,
        attempt=number,
        state=state,
        lineage=lineage,
        retry=True,
        cause=cause,
        message="",
        traceback="",
        place="",
        created=0.0,
        started=1.0 if started else None,
        ended=2.0,
        entered=None,
        returned=None,
        node="",
        gpus=(),
        gpu_uuids=(),
        pid=None,
        threads=None,
        method="",
        code="",
        restored=None,
        purpose="trial",
        plan=1,
        parent=None,
        resources=None,
        ignored=None,
        deterministic=None,
        metrics={},
        objective=None,
        best_metrics={},
        best_step=None,
        changed=number,
    )


@pytest.mark.parametrize(
    ("end", "state", "cause"),
    [
        (ended(exit_code=0, left=1.0, left_code=0), State.SUCCEEDED, ""),
        (ended(signal=9, oom=True, detail="peak"), State.FAILED, "oom"),
        (ended(signal=9, asked="oom", detail="held 9 GiB"), State.FAILED, "oom"),
        (ended(exit_code=1, asked="terminated"), State.LOST, "lost_worker"),
        (ended(signal=15, asked="drained"), State.LOST, "lost_node"),
        (ended(exit_code=3), State.FAILED, "exit"),
        (ended(signal=11), State.FAILED, "signal"),
        (ended(signal=9, asked="cancelled"), State.CANCELLED, "cancelled"),
        (ended(exit_code=143, asked="timeout", detail="ran for 2h"), State.FAILED, "timeout"),
        (ended(exit_code=0, asked="hang", detail="no report for 5m"), State.FAILED, "hang"),
        (ended(exit_code=0, asked="stopped"), State.STOPPED, "stopped"),
        (
            ended(exit_code=1, asked="cancelled", failure=Failure("KeyboardInterrupt", "", "", "")),
            State.CANCELLED,
            None,
        ),
        (ended(lost="node"), State.LOST, "lost_node"),
        (ended(lost="worker", asked="cancelled"), State.LOST, "lost_worker"),
        (raised("KeyError", "'x'"), State.FAILED, "exception"),
        (raised("torch.cuda.OutOfMemoryError", "CUDA out of memory"), State.FAILED, "cuda_oom"),
        (raised("RuntimeError", "CUDA out of memory. Tried"), State.FAILED, "cuda_oom"),
        (raised("RuntimeError", "size mismatch"), State.FAILED, "exception"),
        (raised("MemoryError"), State.FAILED, "oom"),
        (raised("numpy.core._exceptions.MemoryError"), State.FAILED, "oom"),
        (raised("ModuleNotFoundError", "No module named 'x'"), State.FAILED, "import_error"),
        (raised("FileNotFoundError", "data.csv"), State.FAILED, "missing_file"),
    ],
)
def test_state_and_cause_of_an_end(end: Ended, state: State, cause: str | None) -> None:
    outcome = classify(end)
    assert outcome.state is state
    assert cause is None or outcome.cause == cause
    assert bool(outcome.message) == (state in (State.FAILED, State.LOST))
    assert outcome.message == outcome.message.strip()


RETURNED, LEFT_WITH_3, RAISED, NOT_LEFT = 0, 3, 1, None
ERROR = Failure("KeyError", "'x'", "train.py:88", "Traceback …")
EXITS: list[dict[str, Any]] = [
    *({"exit_code": code} for code in (0, 1, 3, 143)),
    *({"signal": number} for number in (9, 11, 15)),
]
LOSSES = {"terminated": (State.LOST, "lost_worker"), "drained": (State.LOST, "lost_node")}
LIMITS = {"stopped": State.STOPPED, **dict.fromkeys(("timeout", "hang", "oom"), State.FAILED)}
ASKED: list[dict[str, Any]] = [
    {},
    *(
        {"asked": asked, "asked_late": late}
        for asked in ("cancelled", "stopped", "timeout", "hang", "oom", "terminated", "drained", "killed")
        for late in (False, True)
    ),
]


@pytest.mark.parametrize("left_code", [RETURNED, LEFT_WITH_3, RAISED, NOT_LEFT])
def test_the_whole_table_of_ends(left_code: int | None) -> None:
    """How the trainer had left, how the process ended, and whether it was asked to, before or after that."""
    for how, asked in itertools.product(EXITS, ASKED):
        failure = ERROR if left_code == RAISED else None
        left = None if left_code is None else 1.0
        outcome = classify(ended(**how, **asked, left=left, left_code=left_code, failure=failure))
        assert (outcome.state, outcome.cause) == expected_end(how, asked, left_code), (how, asked)


def expected_end(how: dict[str, Any], asked: dict[str, Any], left_code: int | None) -> tuple[State, str]:
    if asked and not asked["asked_late"]:  # the signal came first, whatever the trainer made of it
        why = asked["asked"]
        return LOSSES.get(why) or (LIMITS.get(why, State.CANCELLED), why)
    if left_code == RAISED:
        return State.FAILED, "exception"
    by_our_signal = bool(asked) and how.get("signal") in (None, 9, 15)
    if left_code == RETURNED and (by_our_signal or how == {"exit_code": 0}):
        return State.SUCCEEDED, ""
    return State.FAILED, "exit" if by_our_signal or "exit_code" in how else "signal"


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (raised("KeyError", "'x'"), "KeyError: 'x'"),
        (raised("StopIteration"), "StopIteration"),
        (
            raised("RuntimeError", "size mismatch:\n\texpected 3\n\tgot 4\n"),
            "RuntimeError: size mismatch: expected 3 got 4",
        ),
        (raised("E", "\x1b[31mred\x1b[0m and \x07bell"), "E: red and bell"),
        (ended(signal=int(signal.SIGSEGV)), "killed by SIGSEGV"),
        (ended(signal=int(signal.SIGKILL)), "killed by SIGKILL (the kernel does this when memory runs out)"),
        (ended(signal=9, detail="peak memory 5000 MiB"), "killed by SIGKILL: peak memory 5000 MiB"),
        (ended(signal=250), "killed by signal 250"),
        (ended(exit_code=3), "the process ended with exit code 3"),
        (ended(exit_code=3, detail="while the module was imported"), "while the module was imported"),
        (ended(lost="node"), "the node went away"),
        (ended(exit_code=0), "the process ended with exit code 0 before `train` returned, as os._exit(0) does"),
        (ended(exit_code=0, left_code=0, unwritten="2 rows were lost on a: why"), "2 rows were lost on a: why"),
        (ended(exit_code=0, left_code=3), "the process ended with exit code 3"),
    ],
)
def test_messages_are_one_line(end: Ended, message: str) -> None:
    assert classify(end).message == message


@given(st.text())
def test_any_message_becomes_one_short_printable_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert len(line) <= MAX_MESSAGE


def test_an_exception_keeps_traceback_and_place() -> None:
    outcome = classify(raised("KeyError", "'x'"))
    assert (outcome.traceback, outcome.place) == ("Traceback …", "train.py:88")


# ---------------------------------------------------------------- retries


LOSS = Outcome(State.LOST, "lost_worker")
DEATH = Outcome(State.LOST, "lost_coordinator")
FAILURE = Outcome(State.FAILED, "exception")
FULL = Outcome(State.FAILED, "oom")
GPU_FULL = Outcome(State.FAILED, "cuda_oom")
out_of_memory = attempt(State.FAILED, cause="oom")
failed = attempt(State.FAILED)
lost = attempt(State.LOST, cause="lost_worker")
died = attempt(State.LOST, cause="lost_coordinator")
never_ran = attempt(State.LOST, cause="lost_worker", started=False)


@pytest.mark.parametrize(
    ("outcome", "never_started", "earlier", "retries", "expected"),
    [
        (Outcome(State.SUCCEEDED), False, [], Retries(9, 9), False),
        (Outcome(State.STOPPED), False, [], Retries(9, 9), False),
        (Outcome(State.CANCELLED), False, [], Retries(9, 9), False),
        (Outcome(State.CANCELLED), True, [], Retries(0, 0), True),
        (FAILURE, False, [], Retries(error=0), False),
        (FAILURE, False, [], Retries(error=1), True),
        (FAILURE, False, [failed], Retries(error=1), False),
        (FAILURE, False, [out_of_memory], Retries(error=1), True),
        (FULL, False, [failed], Retries(oom=1), True),
        (FULL, False, [out_of_memory], Retries(error=9, oom=1), False),
        (GPU_FULL, False, [failed], Retries(oom=1), True),
        (GPU_FULL, False, [out_of_memory], Retries(error=9, oom=1), False),
        (FAILURE, False, [lost, lost, lost], Retries(error=1), True),
        (LOSS, False, [], Retries(lost=0), False),
        (LOSS, False, [lost, lost], Retries(lost=3), True),
        (LOSS, False, [lost, lost, lost], Retries(lost=3), False),
        (LOSS, False, [failed, died, never_ran, died], Retries(lost=1), True),
        (DEATH, False, [lost] * 9, Retries(0, 0), True),
        (DEATH, True, [never_ran] * 9, Retries(0, 0), True),
        (LOSS, True, [], Retries(0, 0), True),
        (LOSS, True, [never_ran] * (FREE_LAUNCHES - 1), Retries(0, 0), True),
        (LOSS, True, [never_ran] * FREE_LAUNCHES, Retries(9, 9), False),
        (LOSS, True, [*[never_ran] * FREE_LAUNCHES, lost], Retries(0, 0), True),
    ],
)
def test_whether_a_trial_is_retried(
    outcome: Outcome, never_started: bool, earlier: list[AttemptRow], retries: Retries, expected: bool
) -> None:
    assert retried(outcome, never_started, earlier, retries) is expected


@given(
    st.lists(st.sampled_from([FAILURE, LOSS, FULL]), max_size=30),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 2),
)
def test_retry_budgets_limit_the_attempts(ends: list[Outcome], error: int, loss: int, oom: int) -> None:
    earlier: list[AttemptRow] = []
    for number, outcome in enumerate(ends, start=1):
        if not retried(outcome, False, earlier, Retries(error, loss, oom)):
            break
        earlier.append(attempt(outcome.state, number=number, cause=outcome.cause))
    assert len(earlier) <= error + loss + oom


# ---------------------------------------------------------------- continuing


def test_every_attempt_but_a_success_is_continued() -> None:
    assert not continues(None)
    assert {state for state in State if continues(attempt(state))} == set(State) - {State.SUCCEEDED}


def test_an_attempt_from_a_checkpoint_keeps_its_lineage() -> None:
    last = attempt(State.LOST, number=4, lineage=2)
    assert next_lineage(1, None, False) == 1
    assert next_lineage(5, last, False) == 5
    assert next_lineage(5, last, True) == 2


def test_the_docstring_names_every_state() -> None:
    assert lifecycle.__doc__ is not None
    assert all(state.value in lifecycle.__doc__ for state in State)
