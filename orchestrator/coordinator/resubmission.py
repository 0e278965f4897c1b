"""Resubmits trials, with other settings perhaps: in a live coordinator, or before one starts."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.language import changes
from orchestrator.manifest.writer import Manifest
from orchestrator.model.sweep import Resources, SweepSpec, TrialSpec
from orchestrator.ports import Executor


def apply(
    manifest: Manifest, executor: Executor | None, spec: SweepSpec, trial_ids: Iterable[str], settings: changes.Settings
) -> tuple[list[str], SweepSpec]:
    """Ask for a further attempt at each ended trial; returns the trials that get one, and the changed sweep.

    Nothing is written if a setting is wrong. Raises ConfigError; with an executor also ResourceError.
    """
    names = list(trial_ids)
    changed: list[TrialSpec] = []
    sizes: dict[str, Resources] = {}
    if settings:
        spec = changes.sweep(spec, settings)
        changed = [changes.trial(spec, found, settings) for name in names if (found := manifest.trials.spec(name))]
        sizes = {repr(found.resources): found.resources for found in changed}
    if executor is not None:
        for resources in sizes.values():
            executor.check(resources)
    done = manifest.trials.resubmit(names)
    if settings:
        manifest.trials.change(spec, [found for found in changed if found.trial_id in set(done)])
    return done, spec
