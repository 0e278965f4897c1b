"""What the end of an attempt means, and what follows from it. Pure: data in, data out.

PENDING → LAUNCHING → RUNNING → SUCCEEDED | FAILED | STOPPED | CANCELLED | LOST
   ↑_______________________________________________|  a retry, or the user's `resubmit`
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from typing import Literal

from orchestrator.model.events import Ended, Outcome
from orchestrator.model.rows import AttemptRow
from orchestrator.model.sweep import Objective, Retries, State

ENDED_BY_US = {
    "cancelled": State.CANCELLED,
    "stopped": State.STOPPED,
    "timeout": State.FAILED,
    "hang": State.FAILED,
    "oom": State.FAILED,
}
NOTICED = {  # ended ahead of a loss that was announced
    "terminated": ("lost_worker", "its Ray worker was told to end (SIGTERM)"),
    "drained": ("lost_node", "its node is being drained"),
}
ALONE: Mapping[str, Literal["node", "gpu"]] = {"oom": "node", "cuda_oom": "gpu"}  # what ran out is not shared next time
OUT_OF_MEMORY = tuple(ALONE)  # one budget
IMPORT_ERRORS = ("ImportError", "ModuleNotFoundError")
MISSING_FILES = ("FileNotFoundError", "NotADirectoryError")
LONGEST = 500  # characters of a message
FREE_LAUNCHES = 5  # attempts in a row that may fail to start free of charge; the next one is the last

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def classify(ended: Ended) -> Outcome:
    """The state and the cause of an attempt, from the facts of its end."""
    if ended.lost:
        return Outcome(State.LOST, f"lost_{ended.lost}", ended.detail or f"the {ended.lost} went away")
    if ended.asked in NOTICED:
        return Outcome(State.LOST, *NOTICED[ended.asked])
    if ended.asked in ENDED_BY_US:
        return Outcome(ENDED_BY_US[ended.asked], ended.asked, ended.detail, ended.stack, ended.place)
    failure = ended.failure
    if failure is not None:
        message = one_line(f"{failure.type}: {failure.message}" if failure.message else failure.type)
        cause = _exception_cause(failure.type, failure.message)
        return Outcome(State.FAILED, cause, message, failure.traceback, failure.where)
    if ended.signal:
        return Outcome(State.FAILED, "oom" if ended.oom else "signal", _signal_text(ended.signal, ended.detail))
    if ended.exit_code:
        return Outcome(State.FAILED, "exit", ended.detail or f"the process ended with exit code {ended.exit_code}")
    return Outcome(State.SUCCEEDED)


def one_line(text: str) -> str:
    """A message as one line without control characters; the traceback keeps it whole."""
    words = _COLOUR.sub("", text).split()
    line = " ".join("".join(mark for mark in word if mark.isprintable()) for word in words)
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _exception_cause(kind: str, message: str) -> str:
    name = kind.rsplit(".", 1)[-1]
    if name == "OutOfMemoryError" or (name == "RuntimeError" and "CUDA out of memory" in message):
        return "cuda_oom"
    if name == "MemoryError":
        return "oom"
    if name in IMPORT_ERRORS:
        return "import_error"
    if name in MISSING_FILES:
        return "missing_file"
    return "exception"


def _signal_text(number: int, detail: str) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    hint = " (the kernel does so when memory runs out)" if name == "SIGKILL" and not detail else ""
    return f"killed by {name}{hint}" + (f": {detail}" if detail else "")


def retried(outcome: Outcome, never_started: bool, earlier: Sequence[AttemptRow], retries: Retries) -> bool:
    """Whether another attempt follows by itself.

    `earlier` are the attempts before this one since the user last asked for the trial. Failures, losses and a want
    of memory have budgets of their own; the coordinator's death costs nothing, nor does an attempt that never started.
    """
    if outcome.state is State.FAILED:
        oom = outcome.cause in OUT_OF_MEMORY
        alike = sum(row.state is State.FAILED and (row.cause in OUT_OF_MEMORY) == oom for row in earlier)
        return alike < (retries.oom if oom else retries.error)
    if outcome.state is State.CANCELLED:
        return never_started  # it was only queued: it still waits
    if outcome.state is not State.LOST:
        return False
    if outcome.cause == "lost_coordinator":
        return True
    if never_started:
        return _unstarted(earlier) < FREE_LAUNCHES
    charged = [row for row in earlier if row.state is State.LOST and row.started and row.cause != "lost_coordinator"]
    return len(charged) < retries.lost


def _unstarted(earlier: Sequence[AttemptRow]) -> int:
    """How many of the latest attempts in a row never started."""
    count = 0
    for row in reversed(earlier):
        if row.started or row.cause == "lost_coordinator":
            break
        count += 1
    return count


def continues(last: AttemptRow | None) -> bool:
    """Whether the next attempt goes on from the last one's checkpoint: not after a success, which is run anew."""
    return last is not None and last.state is not State.SUCCEEDED


def next_lineage(attempt: int, last: AttemptRow | None, offered: bool) -> int:
    """An attempt that goes on from a checkpoint keeps its series; one from scratch begins another."""
    return last.lineage if last is not None and offered else attempt


def better(objective: Objective, new: float, old: float | None) -> bool:
    """Whether `new` beats `old`; NaN beats nothing."""
    if new != new:
        return False
    if old is None:
        return True
    return new > old if objective.mode == "max" else new < old
