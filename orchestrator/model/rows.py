"""Rows of the manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.model import exact_json
from orchestrator.model.sweep import Row, State, SweepSpec, TrialSpec


@dataclass(frozen=True)
class Parent:
    """The attempt and step that a restored state came from."""

    trial: int  # row of the trial
    attempt: int | None  # None: not known
    step: int


@dataclass(frozen=True)
class AttemptRow:
    """One attempt, as the manifest has it. Times are seconds since the epoch."""

    trial_id: str
    attempt: int
    purpose: str  # "trial", or "verify"
    plan: int  # the plan it was opened for
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
    restored: int | None  # step of the checkpoint it continued from
    parent: Parent | None  # where that state came from
    resources: Mapping[str, Any] | None  # what it got; None: not recorded
    ignored: Mapping[str, Any] | None  # dotted key -> value, of keys that are no part of the id; None: not recorded
    deterministic: str | None  # "warn", "error" or "off"
    metrics: Mapping[str, float]  # last value of each
    objective: float | None
    changed: int  # id of its last change: a cursor for followers

    @property
    def seconds(self) -> float | None:
        """How long it ran. None if that is not known: a loss may be told by a machine whose clock is behind."""
        if self.started is None or self.ended is None or self.ended < self.started:
            return None
        return self.ended - self.started

    @classmethod
    def from_row(cls, row: Row) -> AttemptRow:
        """From a row of the table `attempt` joined with its trial's `trial_id`."""
        return cls(
            trial_id=row["trial_id"],
            attempt=row["attempt"],
            purpose=row["purpose"],
            plan=row["plan"],
            state=State(row["state"]),
            lineage=row["lineage"],
            retry=bool(row["retry"]),
            cause=row["cause"],
            message=row["message"],
            traceback=row["traceback"],
            place=row["place"],
            created=row["created"],
            started=row["started"],
            ended=row["ended"],
            entered=row["entered"],
            returned=row["returned"],
            node=row["node"],
            gpus=tuple(json.loads(row["gpus"])),
            gpu_uuids=tuple(json.loads(row["gpu_uuids"])),
            pid=row["pid"],
            threads=row["threads"],
            method=row["method"],
            code=row["code"],
            restored=row["restored"],
            parent=None
            if row["parent_step"] is None
            else Parent(row["parent_trial"], row["parent_attempt"], row["parent_step"]),
            resources=row["resources"] and json.loads(row["resources"]),
            ignored=None if row["ignored"] is None else exact_json.config(row["ignored"]),
            deterministic=row["deterministic"],
            metrics=exact_json.metrics(row["last"]),
            objective=row["objective"],
            changed=row["changed"],
        )


@dataclass(frozen=True)
class ReportRow:
    """One reported row. `id` grows with every report: a cursor for followers."""

    id: int
    trial_id: str
    attempt: int
    step: int
    time: float
    metrics: Mapping[str, float]

    @classmethod
    def from_row(cls, row: Row) -> ReportRow:
        return cls(
            row["id"], row["trial_id"], row["attempt"], row["step"], row["time"], exact_json.metrics(row["metrics"])
        )


@dataclass(frozen=True)
class TrialRow:
    """A row of the view `trials`: one trial, and what follows from its attempts."""

    trial_id: str
    position: int  # in the plan
    current: bool  # whether the current plan has it
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

    @classmethod
    def from_row(cls, row: Row) -> TrialRow:
        """From a row of the view `trials`."""
        return cls(
            trial_id=row["trial_id"],
            position=row["position"],
            current=bool(row["current"]),
            state=State(row["state"]),
            cause=row["cause"],
            message=row["message"],
            place=row["place"],
            overrides=exact_json.config(row["overrides"]),
            config=exact_json.config(row["config"]),
            seed=row["seed"],
            config_id=row["config_id"],
            metrics=exact_json.metrics(row["metrics"]),
            objective=row["objective"],
            attempts=row["attempts"],
            node=row["node"],
            gpus=tuple(json.loads(row["gpus"])),
            created=row["created"],
            started=row["started"],
            ended=row["ended"],
            code=row["code"],
            stale=bool(row["stale"]),
        )


@dataclass(frozen=True)
class Due:
    """A trial that waits for an attempt."""

    key: int  # its row
    position: int  # in the plan
    spec: TrialSpec
    cause: str  # of the last attempt, if this one follows by itself


@dataclass(frozen=True)
class PlanRow:
    """One plan of the sweep; the latest is the current one."""

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

    @classmethod
    def from_row(cls, row: Row) -> PlanRow:
        return cls(
            plan=row["plan"],
            created=row["created"],
            file=row["file"],
            argv=tuple(json.loads(row["argv"])),
            spec=SweepSpec.from_json(row["spec"]),
            provenance=json.loads(row["provenance"]),
            code=row["code"],
            cwd=row["cwd"],
            total=row["total"],
            excluded=row["excluded"],
            duplicates=row["duplicates"],
            ended=row["ended"],
        )


@dataclass(frozen=True)
class LastPlan:
    """The plan before a new one, and what of it is not in the new one."""

    spec: SweepSpec
    trials: int
    leaving: int
    done: int  # of those that leave
    sample: Sequence[TrialSpec]  # some of its trials
