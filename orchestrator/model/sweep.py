"""The nouns: frozen data that every other module speaks. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, Union


class State(str, Enum):
    """The state of an attempt; a trial has that of its last attempt, or PENDING."""

    PENDING = "PENDING"  # of a trial alone: no attempt is open, and one is due
    LAUNCHING = "LAUNCHING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"  # ended early by the search strategy
    CANCELLED = "CANCELLED"  # ended early by the user
    LOST = "LOST"  # node, worker or coordinator went away

    def __str__(self) -> str:
        return self.value

    @property
    def open(self) -> bool:
        """Whether an attempt in this state still lives."""
        return self in (State.LAUNCHING, State.RUNNING)


# ---------------------------------------------------------------- what is asked for


@dataclass(frozen=True)
class Objective:
    """The number a sweep is about."""

    metric: str
    mode: Literal["min", "max"] = "min"
    at: Literal["last", "best"] = "last"


@dataclass(frozen=True)
class Resources:
    """What one trial holds. `gpus` and `cpus` are "auto" until the cluster is known."""

    gpus: float | Literal["auto"] = "auto"
    cpus: float | Literal["auto"] = "auto"
    memory: int = 0  # bytes; 0: not reserved
    custom: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    alone: Literal["", "gpu", "node"] = ""  # it shares none: ours to say, after a want of memory


@dataclass(frozen=True)
class Retries:
    """How many further attempts a trial gets, by the way the last one ended."""

    error: int = 0
    lost: int = 3
    oom: int = 1  # the node had no memory left: what runs beside it differs the next time


@dataclass(frozen=True)
class Search:
    """How assignments are drawn from the axes."""

    method: Literal["grid", "random"] = "grid"
    trials: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class SweepSpec:
    """The `sweep` section of a config, read and checked."""

    name: str
    trainer: str  # "module:function"
    objective: Objective | None = None
    seed: str = "seed"  # dotted key of the seed in the config
    repeats: int = 1
    axes: Any = field(default_factory=dict)  # as written: a mapping, or a list of mappings (their union)
    exclude: tuple[Mapping[str, Any], ...] = ()
    ignore: tuple[str, ...] = ()  # glob patterns over dotted keys
    secrets: tuple[str, ...] = ()  # glob patterns over dotted keys
    resources: Mapping[str, Any] = field(default_factory=dict)  # may hold ${...} into the trial's config
    retries: Retries = Retries()
    search: Search = Search()
    tracking: Mapping[str, Any] = field(default_factory=dict)
    start: Literal["fork", "spawn"] = "fork"
    deterministic: Literal["warn", "error", "off"] = "warn"
    grace: float = 10.0  # seconds between SIGTERM and SIGKILL
    timeout: float | None = None  # seconds a trial may run
    stop_after_failures: int = 3  # so many first trials that all fail alike end the sweep; 0: it goes on
    heartbeat: float | None = None  # seconds a trial may go without a report
    storage: str | None = None  # a folder for checkpoints and `run.dir`; None: the sweep's own


@dataclass(frozen=True)
class TrialSpec:
    """One point of a sweep. Two specs with one `trial_id` are the same experiment."""

    trial_id: str  # 12 hex digits
    config: Mapping[str, Any]  # resolved plain data, without `sweep`
    overrides: Mapping[str, Any]  # only what varies: dotted keys; a group's key holds the option
    seed: int
    config_id: str  # as trial_id, but without the seed: repeats share it
    references: Mapping[str, str] = field(default_factory=dict)  # dotted key -> "${...}" resolved at the start
    resources: Resources = Resources()


# ---------------------------------------------------------------- what is sent to a node


@dataclass(frozen=True)
class Checkpoint:
    """A state that `run.save` wrote."""

    step: int
    path: str


@dataclass(frozen=True)
class Order:
    """Everything a node needs to run one attempt. Plain data: it is pickled, and written to a pipe as JSON."""

    sweep_uid: str
    trial_id: str
    attempt: int
    trainer: str
    config: Mapping[str, Any]
    references: Mapping[str, str]
    seed: int
    import_path: tuple[str, ...]  # put first on sys.path: the sweep's copy of the code
    cwd: str  # the project; used where the node has it
    folder: str  # the trial's folder; written directly by a node that sees it
    threads: int
    gpus: float
    start: Literal["fork", "spawn"]
    deterministic: Literal["warn", "error", "off"]
    grace: float
    interval: float  # seconds between two batches of events
    returned: str  # metric name of a returned number
    restore: tuple[Checkpoint, ...] = ()  # what the manifest knows of earlier attempts, newest first
    log_cap: int = 16 * 2**20  # bytes kept of an attempt's output
    timeout: float | None = None  # seconds the attempt may run
    heartbeat: float | None = None  # seconds it may go without a report
    file_cap: int = 2**30  # bytes of `run.dir` carried back from a node that does not see `folder`


# ---------------------------------------------------------------- what comes back


@dataclass(frozen=True)
class Started:
    """The trial's process exists."""

    at: float  # seconds since the epoch
    node: str  # host name
    node_id: str  # Ray's id of the node; "" without Ray
    pid: int
    gpus: tuple[str, ...]  # ids as Ray gave them
    gpu_uuids: tuple[str, ...]  # of the same GPUs, where the driver tells
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
    """The next bytes of the attempt's output."""

    data: bytes


@dataclass(frozen=True)
class Filed:
    """A file of `run.dir` from a node that does not see the sweep's folder; `path` is relative."""

    path: str
    data: bytes


@dataclass(frozen=True)
class Saved:
    """`run.save` has made a checkpoint durable."""

    checkpoint: Checkpoint
    at: float


@dataclass(frozen=True)
class Restored:
    """`run.restore` gave the trainer the state of this step."""

    step: int


@dataclass(frozen=True)
class Noticed:
    """One line that the user should see once."""

    text: str


@dataclass(frozen=True)
class Failure:
    """An exception of the trainer: the last user frame, and the traceback without frames of ours."""

    type: str
    message: str
    where: str  # "train.py:88", or ""
    traceback: str


@dataclass(frozen=True)
class Ended:
    """The process tree of the attempt is empty. What it means is decided by `lifecycle.classify`."""

    at: float
    exit_code: int | None = None
    signal: int | None = None
    failure: Failure | None = None
    asked: str | None = None  # why we ended it: "cancelled", "stopped", "timeout", "hang", "drained", ...
    lost: str | None = None  # what went away: "worker", "node", "coordinator"
    detail: str = ""  # evidence in words
    stack: str = ""  # where its threads were when it exceeded a limit
    place: str = ""  # the user's frame there
    oom: bool = False  # the kernel has killed for memory meanwhile
    entered: float | None = None  # when `train` was called
    left: float | None = None  # when it returned


Event = Union[Started, Reported, Logged, Filed, Saved, Restored, Noticed, Ended]


@dataclass(frozen=True)
class Batch:
    """Events of one attempt, in order. `seq` counts the batches of the attempt from 0."""

    trial_id: str
    attempt: int
    seq: int
    events: tuple[Event, ...]


# ---------------------------------------------------------------- what is decided and kept


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, decided."""

    state: State
    cause: str = ""  # "exception", "signal", "lost_worker", ...; "" for success
    message: str = ""  # one line of evidence
    traceback: str = ""
    place: str = ""  # the user's frame: "train.py:88"
    retry: bool = False  # another attempt follows


@dataclass(frozen=True)
class AttemptRow:
    """One attempt, as the manifest has it. Times are seconds since the epoch."""

    trial_id: str
    attempt: int
    state: State
    lineage: int  # the attempt that began the series this one continues
    retry: bool  # decided at its end: another attempt follows
    cause: str
    message: str
    traceback: str
    place: str  # the user's frame: "train.py:88"
    created: float
    started: float | None
    ended: float | None
    entered: float | None  # `train` was called
    returned: float | None  # `train` returned
    node: str
    gpus: tuple[str, ...]
    gpu_uuids: tuple[str, ...]
    pid: int | None
    threads: int | None
    method: str
    code: str  # hash of the project's files
    restored: int | None  # step of the checkpoint it went on from
    metrics: Mapping[str, float]  # last value of each
    objective: float | None
    changed: int  # grows with every change of any attempt: a cursor for followers


@dataclass(frozen=True)
class ReportRow:
    """One reported row, as the manifest has it; `id` grows: a cursor for followers."""

    id: int
    trial_id: str
    attempt: int
    step: int
    time: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TrialRow:
    """One trial and what is derived from its attempts: a row of the view `trials`."""

    trial_id: str
    position: int  # in the plan
    current: bool  # whether the current plan holds it
    state: State
    cause: str
    message: str
    place: str
    overrides: Mapping[str, Any]
    config: Mapping[str, Any]
    seed: int
    config_id: str
    metrics: Mapping[str, float]  # last value of each
    objective: float | None
    attempts: int
    node: str
    gpus: tuple[str, ...]
    created: float | None
    started: float | None
    ended: float | None
    code: str
    stale: bool  # finished with code that is not the current plan's


@dataclass(frozen=True)
class PlanRow:
    """One planning of the sweep; the latest is the current one."""

    plan: int
    created: float
    file: str
    argv: tuple[str, ...]
    spec: SweepSpec
    provenance: Mapping[str, Any]
    code: str
    cwd: str
    total: int | None
    excluded: int
    duplicates: int
    ended: float | None
