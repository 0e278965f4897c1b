"""What is sent to a node: everything that it needs to run one attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


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
