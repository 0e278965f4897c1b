"""From a sweep file to its trials: here if nothing else is needed, or where the trainer's code has been imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.language import with_code
from orchestrator.language.config_errors import MayNeedCode
from orchestrator.language.source import Request
from orchestrator.language.sweep_plan import PlanSummary, SweepPlan, read
from orchestrator.model.sweep import SweepSpec, TrialSpec

__all__ = ["PlanSummary", "SweepPlan", "load", "load_first_trial"]


def load(
    file: Path, overrides: Sequence[str] = (), config_dir: Path | None = None, project: Path | None = None
) -> SweepPlan:
    """Read a sweep file with the overrides of the command line. Raises ConfigError.

    `project`: the folder that the trainer is imported from, if not the working directory.
    """
    request = Request(Path(file), tuple(overrides), config_dir, project or Path.cwd())
    try:
        plan = read(request)
    except MayNeedCode as problem:  # which it keeps, and which keeps this frame: so the plan is in no variable of it
        return _with_options(with_code.plan(request, problem), request)
    plan.otherwise = lambda problem: with_code.plan(request, problem)
    return _with_options(plan, request)


def _with_options(plan: SweepPlan, request: Request) -> SweepPlan:
    plan.options = () if request.config_dir is None else ("--config-dir", str(request.config_dir))
    return plan


def load_first_trial(
    file: Path, overrides: Sequence[str] = (), config_dir: Path | None = None
) -> tuple[SweepSpec, TrialSpec]:
    """One trial of a sweep: with the overrides, and every other axis at its first value."""
    plan = load(file, overrides, config_dir)
    return plan.spec, plan.first_trial()
