"""What an attempt reports back, and how its end is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Union

from orchestrator.model.order import Checkpoint
from orchestrator.model.sweep import State


@dataclass(frozen=True)
class Started:
    """The trial's process exists."""

    at: float  # seconds since the epoch
    node: str  # host name
    node_id: str  # Ray's id of the node; "" without Ray
    pid: int
    gpus: tuple[str, ...]  # ids as Ray gave them
    gpu_uuids: tuple[str, ...]  # of the same GPUs; empty where the driver does not tell
    threads: int
    method: Literal["fork", "spawn", "inline"]


@dataclass(frozen=True)
class Reported:
    """Rows of `run.report`: (step, seconds since the epoch, metrics as JSON text).

    Non-finite values stand in the JSON as "NaN", "Infinity" and "-Infinity".
    """

    rows: tuple[tuple[int, float, str], ...]


@dataclass(frozen=True)
class Logged:
    """The next bytes of what the attempt prints."""

    data: bytes


@dataclass(frozen=True)
class Filed:
    """A file of `run.dir` from a node that does not see the sweep's folder; `path` is relative."""

    path: str
    data: bytes


@dataclass(frozen=True)
class Saved:
    """`run.save` has written a checkpoint to the disk."""

    checkpoint: Checkpoint
    at: float


@dataclass(frozen=True)
class Restored:
    """`run.restore` gave the trainer the state of this step."""

    step: int
    path: str  # of the checkpoint, below the trial's folder
    at: float  # seconds since the epoch


@dataclass(frozen=True)
class Noticed:
    """One line that the user should see once."""

    text: str


@dataclass(frozen=True)
class Failure:
    """An exception of the trainer. The traceback leaves out frames of this package."""

    type: str
    message: str
    where: str  # the innermost frame of the user's code: "train.py:88", or ""
    traceback: str


@dataclass(frozen=True)
class Ended:
    """No process of the attempt is left. `lifecycle.classify` decides what that means."""

    at: float
    exit_code: int | None = None
    signal: int | None = None
    failure: Failure | None = None
    asked: str | None = None  # why we ended it: "cancelled", "stopped", "timeout", "hang", "drained", ...
    lost: str | None = None  # what went away: "worker", "node", "coordinator"
    detail: str = ""  # evidence, as text for the user
    stack: str = ""  # its threads' stacks when it exceeded a limit
    place: str = ""  # the user's frame in that stack
    oom: bool = False  # the kernel killed a process for lack of memory while the attempt ran
    unwritten: str = ""  # rows that its node could not take down, and why, in words
    entered: float | None = None  # when `train` was called
    left: float | None = None  # when it returned or raised
    left_code: int | None = None  # the exit code that this means; 0: it returned, or raised SystemExit(0 or None)
    used: str = ""  # files of the copy of the code that it used, as a JSON list; "": not known
    asked_late: bool = False  # it had left by then: what we asked has interrupted the clean-up only


Event = Union[Started, Reported, Logged, Filed, Saved, Restored, Noticed, Ended]


@dataclass(frozen=True)
class Batch:
    """Events of one attempt, in order. `seq` counts the batches of the attempt from 0."""

    trial_id: str
    attempt: int
    seq: int
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, as `lifecycle.classify` judges it."""

    state: State
    cause: str = ""  # "exception", "signal", "lost_worker", ...; "" for success
    message: str = ""  # one line of evidence
    traceback: str = ""
    place: str = ""  # the user's frame: "train.py:88"
    retry: bool = False  # another attempt follows
