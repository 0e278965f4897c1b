"""Writes sweeps with the real manifest writer, for tests that read them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.decide.ranking import rank
from orchestrator.decide.standing import Standing
from orchestrator.folder.paths import SweepFolder, create_folder
from orchestrator.manifest.attempts import Opening
from orchestrator.manifest.query import Column, Condition
from orchestrator.manifest.reader import Reader
from orchestrator.manifest.writer import Manifest
from orchestrator.model.events import Ended, Outcome, Started
from orchestrator.model.rows import TrialRow
from orchestrator.model.sweep import Objective, Resources, State, SweepSpec, TrialSpec

NOW = 2_000_000_000.0  # the time of every event here, in seconds since the epoch
LOSS = Objective("loss", "min", "last")
SUCCESS = Outcome(State.SUCCEEDED)
FAILURE = Outcome(State.FAILED, "exception", "KeyError: 'x'", "Traceback …", "train.py:88")
LOST = Outcome(State.LOST, "lost_worker", "the worker went away")


def sweep_spec(**changes: Any) -> SweepSpec:
    return SweepSpec(**{"name": "s", "trainer": "train:train", "objective": LOSS, **changes})


def trial_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:12]


def trial_spec(number: int, **changes: Any) -> TrialSpec:
    """A trial with x = `number`."""
    known: dict[str, Any] = {
        "trial_id": trial_id(number),
        "config": {"x": number, "model": {"size": 10 * number}},
        "overrides": {"x": number},
        "seed": 1,
        "config_id": trial_id(number)[::-1],
        "resources": Resources(gpus=0, cpus=1),
    }
    return TrialSpec(**{**known, **changes})


def quick() -> str | None:
    """A folder in memory, if there is one, because a manifest waits for the disk in every transaction."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def create(root: Path, name: str = "s") -> SweepFolder:
    return create_folder(root, name)


def plan(
    manifest: Manifest,
    trials: Iterable[TrialSpec],
    *,
    spec: SweepSpec | None = None,
    code: str = "code-1",
    provenance: Mapping[str, Any] | None = None,
) -> int:
    """Write a plan, as `orchestrate sweep` does."""
    spec = spec or sweep_spec()
    facts = {"tree": f"tree-of-{code}", "commit": "c0ffee", "python": "3.11.2", "packages": "packages-1.txt"}
    with manifest.transaction():
        number = manifest.plans.begin(
            spec, "conf/sweep.yaml", ["x=1,2"], {**facts, **(provenance or {})}, code, "/work"
        )
        total = manifest.plans.add_trials(number, trials)
        manifest.plans.finish(number, total, 0, 0)
        manifest.plans.judge(spec.objective)
        manifest.trials.resume_cancelled(number)
    return number


def key_of(manifest: Manifest, number: int) -> int:
    """The database key of a waiting trial."""
    due = manifest.trials.due_one(trial_id(number))
    assert due is not None
    return due.key


def opening(key: int, attempt: int = 1, *, lineage: int | None = None, **changes: Any) -> Opening:
    """What is known of an attempt when it is opened."""
    usual: dict[str, Any] = {
        "plan": 1,
        "code": "code-1",
        "at": NOW,
        "resources": Resources(gpus=0.0, cpus=1.0),
        "deterministic": "warn",
        "ignored": {},
    }
    return Opening(key, attempt, lineage or attempt, **{**usual, **changes})


def begin(
    manifest: Manifest, number: int, attempt: int = 1, *, lineage: int | None = None, code: str = "code-1"
) -> int:
    """Open an attempt and start it. Returns the trial's database key."""
    key = key_of(manifest, number)
    current = manifest.plans.current()
    with manifest.transaction():
        manifest.attempts.open(opening(key, attempt, lineage=lineage, code=code, plan=current.plan if current else 1))
        manifest.attempts.started(key, attempt, Started(NOW + 1, "node-a", "", 77, ("1",), ("GPU-b",), 1, "fork"))
    return key


def report(manifest: Manifest, key: int, attempt: int, step: int, /, **metrics: Any) -> None:
    """Report one row, as the coordinator records it."""
    current = manifest.plans.current()
    with manifest.transaction():
        manifest.attempts.reported(key, attempt, [(step, NOW + 2 + step, json.dumps(metrics))])
        standing = Standing(current.spec.objective if current else LOSS, manifest.attempts.series(key))
        manifest.attempts.progressed(key, attempt, standing)


def best(reader: Reader, objective: Objective | None) -> TrialRow | None:
    """The winner's best repeat."""
    found = rank(reader.candidates(), objective.mode).best if objective else None
    return reader.exactly(found.trials[0]) if found else None


def where(**settings: Any) -> list[Condition]:
    return [Condition(Column("setting", key), "=", [value]) for key, value in settings.items()]


def end(manifest: Manifest, key: int, attempt: int = 1, outcome: Outcome = SUCCESS) -> None:
    with manifest.transaction():
        manifest.attempts.close(key, attempt, outcome, Ended(NOW + 10, entered=NOW + 1.5, left=NOW + 9.5))


def run(manifest: Manifest, number: int, outcome: Outcome = SUCCESS, attempt: int = 1, **metrics: Any) -> int:
    """Run a whole attempt, with one reported row if there are metrics."""
    key = begin(manifest, number, attempt)
    if metrics:
        report(manifest, key, attempt, 0, **metrics)
    end(manifest, key, attempt, outcome)
    return key
