"""What is asked for: a sweep, its trials, and the state of their attempts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, Protocol

from orchestrator.model import exact_json


class Row(Protocol):
    """A row of SQL, by the names of its columns."""

    def __getitem__(self, key: str, /) -> Any: ...


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
    def word(self) -> str:
        """What people are told. A trial whose attempt waits for a slot is waiting, as one without an attempt is."""
        return {"PENDING": "waiting", "LAUNCHING": "waiting", "STOPPED": "stopped early"}.get(self, self.value.lower())

    @property
    def open(self) -> bool:
        """Whether an attempt in this state still lives."""
        return self in (State.LAUNCHING, State.RUNNING)


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
class CodeRules:
    """Patterns of files that a sweep keeps as code, or does not, against what it would do by itself."""

    include: tuple[str, ...] = ()  # counts for more than `exclude`
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepSpec:
    """The `sweep` section of a config, read and checked."""

    name: str
    trainer: str  # "module:function"
    objective: Objective | None = None
    steps: int | str | None = None  # of a full training: a number, or "${key}" of the trial's config that holds it
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
    code: CodeRules = CodeRules()
    version_base: str | None = None  # of Hydra's rules, as in `@hydra.main`; None: what the trainer's source says
    allow_missing: tuple[str, ...] = ()  # glob patterns over dotted keys that may be `???`
    hydra: Mapping[str, Any] = field(default_factory=dict)  # see `language.hydra_values`; empty: no Hydra application
    env: tuple[str, ...] = ()  # names of variables of the shell that trials get; their values are stored nowhere

    @classmethod
    def from_json(cls, text: str) -> SweepSpec:
        """Undo `to_json`."""
        data = json.loads(text)
        return cls(
            **{
                **data,
                "objective": Objective(**data["objective"]) if data["objective"] else None,
                "retries": Retries(**data["retries"]),
                "search": Search(**data["search"]),
                "exclude": tuple(data["exclude"]),
                "ignore": tuple(data["ignore"]),
                "secrets": tuple(data["secrets"]),
                "allow_missing": tuple(data.get("allow_missing", ())),
                "env": tuple(data.get("env", ())),
                "code": CodeRules(*(tuple(data.get("code", {}).get(key, ())) for key in ("include", "exclude"))),
            }
        )

    def steps_of(self, config: Mapping[str, Any]) -> int | None:
        """How many steps a full training with this config has; None if the sweep does not say."""
        found: Any = self.steps
        if isinstance(found, str):
            found = config
            for part in self.steps_key.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
        return found if type(found) is int and found > 0 else None

    @property
    def steps_key(self) -> str:
        """The dotted key of the config that holds the number of steps; "" if the sweep gives the number itself."""
        return self.steps.strip("${} ") if isinstance(self.steps, str) else ""

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return exact_json.dumps(dataclasses.asdict(self))


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
    choices: Mapping[str, str | None] = field(default_factory=dict)  # config group -> option, of every group
    hydra: Mapping[str, Any] = field(default_factory=dict)  # what Hydra would tell it: see `language.hydra_values`

    def kept(self) -> Mapping[str, Any]:
        """What the column `refs` holds. No key of a config is called `hydra`: Hydra keeps that for itself."""
        return {**self.references, "hydra": self.hydra} if self.hydra else self.references

    def told(self) -> Mapping[str, Any]:
        """What Hydra would tell it, with its choices; empty if that is nothing."""
        return {**self.hydra, "choices": self.choices} if self.hydra else {}

    @classmethod
    def from_row(cls, row: Row) -> TrialSpec:
        """From a row of the table `trial`."""
        references = json.loads(row["refs"])
        hydra = references.pop("hydra", {})
        return cls(
            trial_id=row["trial_id"],
            config=exact_json.config(row["config"]),
            overrides=exact_json.config(row["overrides"]),
            seed=row["seed"],
            config_id=row["config_id"],
            references=references,
            resources=Resources(**json.loads(row["resources"])),
            choices=json.loads(row["choices"]),
            hydra=hydra,
        )
