"""What is sent to a node: everything that it needs to run one attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.model import trainer
from orchestrator.model.sweep import SweepSpec, TrialSpec
from orchestrator.model.trainer import Trainer


@dataclass(frozen=True)
class Checkpoint:
    """A state that `run.save` wrote."""

    step: int
    path: str


@dataclass(frozen=True)
class Order:
    """Everything a node needs to run one attempt. It is pickled on its way there, so it holds plain data only."""

    trial_id: str
    trainer: Trainer
    config: Mapping[str, Any]
    references: Mapping[str, str]
    seed: int
    start: Literal["fork", "spawn"]
    deterministic: Literal["warn", "error", "off"]
    grace: float
    returned: str  # metric name of a returned number
    timeout: float | None = None  # seconds the attempt may run
    heartbeat: float | None = None  # seconds it may go without a report
    sweep_uid: str = ""
    attempt: int = 1
    import_path: tuple[str, ...] = ()  # put first on sys.path: the sweep's copy of the code
    cwd: str = ""  # the project; used where the node has it
    folder: str = ""  # the trial's folder; a node that sees it writes there directly
    threads: int = 1
    gpus: float = 0.0
    interval: float = 1.0  # seconds between two batches of events
    restore: tuple[Checkpoint, ...] = ()  # what the manifest knows of earlier attempts, newest first
    hydra: Mapping[str, Any] = field(default_factory=dict)  # of `SweepSpec`
    hydra_own: Mapping[str, Any] = field(default_factory=dict)  # of `TrialSpec.told`
    number: int = 0  # its position in the plan
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # variables, whose values may be secret
    log_cap: int = 16 * 2**20  # bytes kept of an attempt's output: the first half, and the last
    file_cap: int = 2**30  # bytes of `run.dir` sent back from a node that does not see `folder`

    @classmethod
    def of(cls, sweep: SweepSpec, trial: TrialSpec) -> Order:
        """What the sweep file says about a trial; `dataclasses.replace` adds which attempt it is, and where it runs."""
        return cls(
            trial_id=trial.trial_id,
            trainer=trainer.parse(sweep.trainer),
            config=trial.config,
            references=trial.references,
            seed=trial.seed,
            start=sweep.start,
            deterministic=sweep.deterministic,
            grace=sweep.grace,
            returned=sweep.objective.metric if sweep.objective else "objective",
            timeout=sweep.timeout,
            heartbeat=sweep.heartbeat,
            hydra=sweep.hydra,
            hydra_own=trial.told(),
        )
