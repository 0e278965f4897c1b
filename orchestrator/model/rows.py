"""What the manifest holds, as frozen rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.model.sweep import State, SweepSpec, TrialSpec


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
class Due:
    """A trial that waits for an attempt."""

    key: int  # its row
    position: int  # in the plan
    spec: TrialSpec
    cause: str  # of the last attempt, if this one follows by itself


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
