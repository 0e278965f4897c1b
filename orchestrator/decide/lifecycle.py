"""What the end of an attempt means, and whether another attempt follows. Pure: data in, data out.

PENDING → LAUNCHING → RUNNING → SUCCEEDED | FAILED | STOPPED | CANCELLED | LOST
   ↑_______________________________________________|  a retry, or the user runs `resubmit`
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from typing import Literal

from orchestrator.model.events import Ended, Outcome
from orchestrator.model.rows import AttemptRow
from orchestrator.model.sweep import Retries, State

ENDED_BY_US = {  # reason why the orchestrator ended the attempt -> state
    "cancelled": State.CANCELLED,
    "stopped": State.STOPPED,
    "timeout": State.FAILED,
    "hang": State.FAILED,
    "oom": State.FAILED,
}
LOSS_ANNOUNCED = {  # the attempt was ended because its worker or node was about to go away
    "terminated": ("lost_worker", "its Ray worker was told to end"),
    "drained": ("lost_node", "its node is being drained"),
}
# After running out of memory, the next attempt has the node, or its GPUs, for itself.
RETRY_ALONE: Mapping[str, Literal["node", "gpu"]] = {"oom": "node", "cuda_oom": "gpu"}
OUT_OF_MEMORY = tuple(RETRY_ALONE)  # these causes share one retry budget, `retries.oom`
IMPORT_ERRORS = ("ImportError", "ModuleNotFoundError")
MISSING_FILES = ("FileNotFoundError", "NotADirectoryError")
MAX_MESSAGE = 500  # characters
FREE_LAUNCHES = 5  # so many attempts in a row may fail to start and are retried; the next such attempt is the last

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def classify(ended: Ended) -> Outcome:
    """The state and the cause of an attempt that has ended.

    It has succeeded if its trainer returned before anybody asked it to end, and its process then ended with exit code
    0. What we asked afterwards changes nothing: at most it has interrupted the clean-up.
    """
    if ended.lost:
        return Outcome(State.LOST, f"lost_{ended.lost}", ended.detail or f"the {ended.lost} went away")
    if ended.asked and not ended.asked_late:
        return _as_asked(ended, ended.asked)
    failure = ended.failure
    if failure is not None:
        message = one_line(f"{failure.type}: {failure.message}" if failure.message else failure.type)
        cause = _exception_cause(failure.type, failure.message)
        return Outcome(State.FAILED, cause, message, failure.traceback, failure.where)
    code, number = ended.exit_code, ended.signal
    if ended.asked and number in (None, signal.SIGTERM, signal.SIGKILL):
        code, number = ended.left_code, None
    if number:
        return Outcome(State.FAILED, "oom" if ended.oom else "signal", _signal_text(number, ended.detail))
    code = code or ended.left_code
    if code is None:
        text = "the process ended with exit code 0 before `train` returned, as os._exit(0) does"
        return Outcome(State.FAILED, "exit", ended.detail or text)
    if code:
        return Outcome(State.FAILED, "exit", ended.detail or f"the process ended with exit code {code}")
    if ended.unwritten:
        return Outcome(State.FAILED, "rows_lost", ended.unwritten)
    return Outcome(State.SUCCEEDED)


def _as_asked(ended: Ended, asked: str) -> Outcome:
    """The outcome of an attempt that we have ended, whatever its trainer made of the signal."""
    if asked in LOSS_ANNOUNCED:
        return Outcome(State.LOST, *LOSS_ANNOUNCED[asked])
    return Outcome(ENDED_BY_US.get(asked, State.CANCELLED), asked, ended.detail, ended.stack, ended.place)


def one_line(text: str) -> str:
    """A message as one short line without control characters. The traceback still has all of it."""
    words = _COLOUR.sub("", text).split()
    line = " ".join("".join(mark for mark in word if mark.isprintable()) for word in words)
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…"


def _exception_cause(type_name: str, message: str) -> str:
    name = type_name.rsplit(".", 1)[-1]
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
    hint = " (the kernel does this when memory runs out)" if name == "SIGKILL" and not detail else ""
    return f"killed by {name}{hint}" + (f": {detail}" if detail else "")


def retried(outcome: Outcome, never_started: bool, earlier: Sequence[AttemptRow], retries: Retries) -> bool:
    """Whether the trial is retried automatically.

    `earlier`: the previous attempts since the user last asked for the trial. Errors, losses and running out of memory
    have a retry budget each. An attempt that was lost because the coordinator died, or that never started, uses none.
    """
    if outcome.state is State.FAILED:
        oom = outcome.cause in OUT_OF_MEMORY
        used = sum(row.state is State.FAILED and (row.cause in OUT_OF_MEMORY) == oom for row in earlier)
        return used < (retries.oom if oom else retries.error)
    if outcome.state is State.CANCELLED:
        return never_started  # it was only queued, so the trial still has to run
    if outcome.state is not State.LOST:
        return False
    if outcome.cause == "lost_coordinator":
        return True
    if never_started:
        return _failed_launches(earlier) < FREE_LAUNCHES
    charged = [row for row in earlier if row.state is State.LOST and row.started and row.cause != "lost_coordinator"]
    return len(charged) < retries.lost


def _failed_launches(earlier: Sequence[AttemptRow]) -> int:
    """How many of the most recent attempts, in a row, never started."""
    count = 0
    for row in reversed(earlier):
        if row.started or row.cause == "lost_coordinator":
            break
        count += 1
    return count


def continues(last: AttemptRow | None) -> bool:
    """Whether the next attempt may continue from a checkpoint. After a success it starts from scratch."""
    return last is not None and last.state is not State.SUCCEEDED


def next_lineage(attempt: int, last: AttemptRow | None, offered: bool) -> int:
    """The lineage of an attempt: that of the last attempt if it continues from its checkpoint, else a new one.

    `offered`: a checkpoint of the last attempt exists. A lineage is named by the number of its first attempt.
    """
    return last.lineage if last is not None and offered else attempt
