"""The winner of a sweep, and its configs in order, as `decide.ranking` has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from orchestrator import naming
from orchestrator.decide.ranking import Config, rank
from orchestrator.manifest.query import ALL, Query
from orchestrator.manifest.reader import Reader
from orchestrator.model.exact_json import configs
from orchestrator.model.rows import PlanRow, TrialRow
from orchestrator.model.sweep import Objective

_SHORT_ID = 8


@dataclass(frozen=True)
class Winner:
    """The best config of the current plan."""

    trial: TrialRow  # its best repeat
    config: Config
    settings: Mapping[str, Any]  # what varies from config to config
    single: TrialRow | None  # the best single trial, where that is another config's

    def as_json(self, objective: Objective | None) -> dict[str, Any]:
        config = self.config
        return {
            "trial_id": self.trial.trial_id,
            "objective": self.trial.objective,
            "metric": objective and objective.metric,
            "at": objective and objective.at,
            "overrides": self.trial.overrides,
            "config_id": config.config_id,
            "mean": config.mean,
            "sd": config.sd,
            "repeats": config.of,
            "ended_well": config.well,
            "provisional": config.provisional,
            "best_single": self.single and {"trial_id": self.single.trial_id, "objective": self.single.objective},
        }

    def line(self, objective: Objective) -> str:
        """ "valid/acc 0.912 ± 0.004 (3 of 3)  6065abcd  lstm adam"."""
        label = naming.label(self.settings)
        return f"{objective.metric} {value_text(self.config)}  {self.trial.trial_id[:_SHORT_ID]}  {label}"

    def single_line(self, objective: Objective) -> str | None:
        """The best single trial, if it is none of the winner's."""
        if self.single is None:
            return None
        value = f"{objective.metric} {naming.metric(self.single.objective)}"
        label = naming.label(self.single.overrides)
        return f"{value}  {self.single.trial_id[:_SHORT_ID]}  {label}"


def value_text(config: Config) -> str:
    """The mean of a config: "0.912 ± 0.004 (3 of 3)"; of a config that has one trial, its value: "0.9 (failed)"."""
    if config.of == 1:
        mark = " (failed)" if config.failed else " (provisional)" if config.provisional else ""
        return naming.metric(config.mean) + (mark if config.mean is not None else "")
    spread = "" if config.sd is None else f" ± {config.sd:.2g}"
    return f"{naming.metric(config.mean)}{spread} ({config.repeats})"


def winner(reader: Reader, plan: PlanRow | None) -> Winner | None:
    """The best config of the current plan; None if no trial can be the best one."""
    objective = plan.spec.objective if plan else None
    if plan is None or objective is None:
        return None
    ranking = rank(reader.candidates(), objective.mode)
    best = ranking.best
    if best is None:
        return None
    single = ranking.single if ranking.repeated else None
    trial = reader.exactly(best.trials[0])
    other = reader.exactly(single) if single and single not in best.trials else None
    return Winner(trial, best, _settings(trial.overrides, plan, best), other)


def _settings(overrides: Mapping[str, Any], plan: PlanRow, config: Config) -> dict[str, Any]:
    """What varies from config to config: of several repeats, not the seed."""
    return {key: value for key, value in overrides.items() if config.of == 1 or key != plan.spec.seed}


@dataclass(frozen=True)
class ConfigRow:
    """A config in the list of configs."""

    config: Config
    settings: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        config = self.config
        return {
            "config_id": config.config_id,
            "overrides": self.settings,
            "mean": config.mean,
            "sd": config.sd,
            "repeats": config.of,
            "ended_well": config.well,
            "failed": config.failed,
            "ranked": config.ranked,
            "provisional": config.provisional,
            "trials": list(config.trials),
        }


def by_config(reader: Reader, plan: PlanRow, query: Query, worst_first: bool = False) -> Iterator[ConfigRow]:
    """The configs of the current plan, the best first. Of those that `query` selects a trial of, all repeats count."""
    objective = plan.spec.objective
    every = Query(shown=query.shown)
    ranking = rank(reader.candidates(every), objective.mode if objective else "min", worst_first=worst_first)
    rows = reader.listed("trial_id, overrides", ALL)
    overrides = dict(zip([row[0] for row in rows], configs([row[1] for row in rows]), strict=True))
    selected = {row[0] for row in reader.listed("trial_id", replace(query, limit=None))}
    for config in ranking.configs():
        if any(trial_id in selected for trial_id in config.trials):
            yield ConfigRow(config, _settings(overrides[config.trials[0]], plan, config))
